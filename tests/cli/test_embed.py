import polars as pl


def test_vectors_have_one_width_and_keep_the_ids(fitted, log, called, tmp_path):
    assert called("embed", fitted, log, "--to", tmp_path / "v.parquet")[0] == 0
    frame = pl.read_parquet(tmp_path / "v.parquet")
    assert frame["id"].to_list()[:2] == ["c0", "c1"]
    assert frame["vector"].to_numpy().shape[0] == 40
    assert called("embed", fitted, log, "--to", tmp_path / "v.csv")[0] == 0
    assert pl.read_csv(tmp_path / "v.csv").width == 1 + frame["vector"].dtype.shape[0]
