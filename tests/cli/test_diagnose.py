import pytest

from seqloom.app import _diagnostics, diagnose
from seqloom.data.synthetic.induction import Induction
from seqloom.data.synthetic.parity import Parity

SMALL = {"train": 64, "valid": 8, "test": 10}
TASKS = {
    "parity": _diagnostics.Diagnostic(Parity.Config(length=12, test_length=0, **SMALL), rows=8),
    "induction": _diagnostics.Diagnostic(
        Induction.Config(vocab=6, length=8, **SMALL),
        {"16": Induction.Config(vocab=6, length=8, test_length=16, **SMALL)},
    ),
}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnose, "DIAGNOSTICS", TASKS)
    monkeypatch.chdir(tmp_path)


def test_a_card_is_one_object_and_its_files_are_written(answered, tmp_path):
    words = ("gru", "--tasks", "parity,induction", "--budget", "3steps", "--report", "r.html", "--table", "t.csv")
    got = answered("diagnose", *words)
    assert [(cell["mixer"], cell["task"]) for cell in got["cells"]] == [("gru", "parity"), ("gru", "induction")]
    assert got["cells"][1]["longer"].keys() == {"16"}
    assert len(got["cells"][0]["tried"]) == 3
    assert "induction" in (tmp_path / "r.html").read_text()
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 4
    assert answered("diagnose", *words[:5]) == got  # finished before: not a second is other
    assert len(list((tmp_path / "diagnosis" / "cells").glob("*.json"))) == 2


def test_people_read_a_card_for_each_mixer_and_a_table_over_all(called):
    code, out, err = called("diagnose", "gru,gru+s4d", "--tasks", "parity", "--budget", "3steps", "--rates", "3e-3")
    assert code == 0, err
    for word in ("gru,s4d", "not solved", "0.003 alone", "the same", "50.0%"):
        assert word in out
    assert "3steps, one seed" in err


def test_options_are_of_the_mixer(answered):
    words = ("diagnose", "s4d", "--tasks", "parity", "--budget", "3steps", "--rates", "1e-3")
    plain = answered(*words)["cells"][0]
    other = answered(*words, "--option", "state=8", "--option", "init=lin")["cells"][0]
    assert other["mixer"] == "s4d(state=8, init=lin)"
    assert other["state_bytes"] < plain["state_bytes"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("grue",), "did you mean gru"),
        (("gru", "--tasks", "paritty"), "did you mean parity"),
        (("gru", "--option", "widthh=3"), "hidden"),
        (("gru", "--rates", "quick"), "halving"),
        (("gru", "--table", "t.xlsx"), ".csv"),
        (("gru", "--report", "."), "directory"),
    ],
)
def test_what_cannot_be_is_told(called, tmp_path, words, told):
    code, out, err = called("diagnose", *words, "--budget", "3steps")
    assert code in (2, 3)
    assert told in err
    assert not out
    assert not (tmp_path / "diagnosis").exists()


def test_a_mixer_without_any_result_is_an_error_and_told(called):
    code, _, err = called(
        "diagnose", "attention", "--option", "causal=false", "--tasks", "parity", "--budget", "3steps"
    )
    assert code == 2
    assert "future" in err
