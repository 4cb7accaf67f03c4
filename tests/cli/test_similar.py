def test_one_id_finds_its_neighbours_but_not_itself(fitted, log, answered):
    rows = answered("similar", fitted, log, "--id", "c0", "--top", "3")["rows"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert "c0" not in {row["neighbour"] for row in rows}
    assert rows[0]["neighbour"] in {"c12", "c24", "c36"}  # the same events
    assert rows[0]["cosine"] > 0.999


def test_an_unknown_id_is_told(fitted, log, called):
    code, _, err = called("similar", fitted, log, "--id", "nobody")
    assert code == 2
    assert "'nobody'" in err
