import csv
import io

import polars as pl


def test_rows_keep_ids_and_order(fitted, log, answered):
    rows = answered("predict", fitted, log, "--top", "2")["rows"]
    ids = list(dict.fromkeys(row["id"] for row in rows))
    assert ids == list(dict.fromkeys(pl.read_csv(log)["case"].to_list()))
    assert [row["rank"] for row in rows[:4]] == [1, 2, 1, 2]
    assert all(a["probability"] >= b["probability"] for a, b in zip(rows[::2], rows[1::2], strict=True))


def test_a_pipe_gets_csv(fitted, log, called):
    code, out, _ = called("predict", fitted, log, "--top", "1")
    assert code == 0
    assert next(csv.reader(io.StringIO(out))) == ["id", "rank", "symbol", "probability"]


def test_files_by_their_ending(fitted, log, called, tmp_path):
    for ending, read in ((".csv", pl.read_csv), (".parquet", pl.read_parquet), (".jsonl", pl.read_ndjson)):
        code, _, _ = called("predict", fitted, log, "--to", tmp_path / f"next{ending}")
        assert code == 0
        assert read(tmp_path / f"next{ending}").height == 40 * 5
    assert called("predict", fitted, log, "--to", tmp_path / "next.xls")[0] == 2


def test_a_folder_without_a_model_is_told(log, tmp_path, called):
    code, _, err = called("predict", tmp_path, log)
    assert code == 2
    assert "holds no finished model" in err
