import json

import pytest

WORDS = ("--models", "ngram,gru", "--budget", "12steps", "--seeds", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compared")


def test_json_has_the_baseline_and_every_model(log, folder, answered):
    got = answered("compare", log, *WORDS, "--out", folder, "--save-best", folder / "best")
    rows = {row["name"]: row for row in got["models"]}
    assert set(rows) == {"unigram", "ngram", "gru"}
    assert rows["ngram"]["bits_per_symbol"] < rows["unigram"]["bits_per_symbol"]
    assert rows["gru"]["seeds"] == 2
    assert rows["gru"]["spread"] > 0
    assert rows["ngram"]["seeds"] == 1
    assert got["split"]["how"] == "time"
    assert (folder / "best" / "model.safetensors").is_file()
    assert "is best with" in (folder / "report.html").read_text()
    assert "# " in (folder / "best" / "card.md").read_text()


def test_finished_arms_are_not_done_again(log, folder, answered):
    marks = sorted(folder.glob("arms/*/arm.json"))
    before = [mark.stat().st_mtime_ns for mark in marks]
    assert len(marks) == 4
    again = answered("compare", log, *WORDS, "--out", folder)
    assert [mark.stat().st_mtime_ns for mark in marks] == before
    assert len(again["models"]) == 3


def test_a_failing_model_does_not_take_the_others_with_it(log, folder, called, monkeypatch):
    from seqloom.app import compare as module

    real = module.fit_run

    def fails(run, loaded, *, name, **rest):
        if name == "lstm":
            raise RuntimeError("out of luck")
        return real(run, loaded, name=name, **rest)

    monkeypatch.setattr(module, "fit_run", fails)
    words = ("--models", "ngram,lstm,gru", "--budget", "12steps", "--seeds", "2", "--out", folder)
    code, out, _ = called("compare", log, *words, "--json")
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    assert code == 0
    assert rows["lstm"]["error"] == "RuntimeError: out of luck"
    assert rows["gru"]["bits_per_symbol"] > 0


def test_the_cost_is_told_before_it_begins(log, tmp_path, called):
    _, _, err = called("compare", log, "--models", "ngram", "--out", tmp_path)
    assert "2 trainings; 0 networks" in err.splitlines()[0]


def test_a_model_that_is_there_is_not_written_over_by_the_best(fitted, log, tmp_path, called):
    out = tmp_path / "c"
    code, _, err = called("compare", log, "--models", "ngram", "--out", out, "--save-best", fitted)
    assert code == 2
    assert "choose another place with --save-best" in err
    assert not out.exists()


def test_the_table_is_written_beside_the_answer(log, tmp_path, answered, called):
    file = tmp_path / "t.csv"
    got = answered("compare", log, "--models", "ngram", "--out", tmp_path / "c", "--table", file)
    assert len(file.read_text().splitlines()) == 1 + len(got["models"])
    code, _, err = called("compare", log, "--models", "ngram", "--out", tmp_path / "d", "--table", tmp_path / "t.docx")
    assert code == 2
    assert "--table says the format" in err
    assert not (tmp_path / "d").exists()


def test_a_reader_that_goes_away_after_one_line_costs_neither_report_nor_model(log, tmp_path):
    import subprocess
    import sys

    words = ["compare", log, "--models", "ngram", "--out", tmp_path / "c", "--save-best", tmp_path / "best"]
    run = [sys.executable, "-m", "seqloom", *map(str, words)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()  # before the first line
        assert process.wait(120) == 0
    assert (tmp_path / "c" / "report.html").is_file()
    assert (tmp_path / "best" / "model.safetensors").is_file()
