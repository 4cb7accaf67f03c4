import pytest


def test_oddest_come_first(fitted, log, answered):
    every = answered("score", fitted, log)["rows"]
    oddest = answered("score", fitted, log, "--odd", "3")["rows"]
    assert len(every) == 40
    assert [row["bits_per_symbol"] for row in oddest] == sorted(
        (row["bits_per_symbol"] for row in every), reverse=True
    )[:3]


def test_symbols_add_up_to_their_sequence(fitted, log, answered):
    whole = answered("score", fitted, log)["rows"][0]
    parts = [row for row in answered("score", fitted, log, "--symbols")["rows"] if row["id"] == whole["id"]]
    assert parts[-1]["symbol"] == "<eos>"
    assert len(parts) == whole["symbols"]
    assert sum(row["bits"] for row in parts) == pytest.approx(whole["bits"])


def test_fewer_than_no_odd_ones_are_refused(fitted, log, called):
    code, _, err = called("score", fitted, log, "--odd", "-3")
    assert code == 2
    assert "--odd must be 0" in err
