import json
from inspect import signature

from seqloom.app.fit import fit
from seqloom.cli.fit import Fit
from seqloom.training.budget import parse
from seqloom.training.checkpoint import load


def test_a_fit_leaves_a_whole_folder(fitted):
    names = {path.name for path in fitted.iterdir()}
    wanted = {"model.safetensors", "config.json", "vocabulary.json", "run.json", "card.md", "timing.json"}
    assert wanted | {"metrics.json", "metrics.jsonl"} <= names
    assert "checkpoint.safetensors" not in names
    assert json.loads((fitted / "run.json").read_text())["budget"]["steps"] == 30
    card = (fitted / "card.md").read_text()
    assert "unigram (trivial)" in card
    assert "fingerprint" in card


def test_same_seed_and_steps_give_the_same_bytes(fitted, log, tmp_path, called):
    code, _, _ = called("fit", log, "--model", "gru", "--budget", "30steps", "--out", tmp_path / "again")
    assert code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (fitted / "model.safetensors").read_bytes()
    called("fit", log, "--model", "gru", "--budget", "30steps", "--seed", "8", "--out", tmp_path / "other")
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != (fitted / "model.safetensors").read_bytes()


def test_json_is_the_figures(log, tmp_path, answered):
    got = answered("fit", log, "--model", "ngram", "--out", tmp_path / "m")
    assert got["task"] == "next"
    assert got["test"]["bits_per_symbol"] < got["trivial"]["bits_per_symbol"]
    assert load(tmp_path / "m" / "model.safetensors")[0]


def test_a_finished_model_is_not_written_over(fitted, log, called):
    before = (fitted / "model.safetensors").stat().st_mtime_ns
    code, _, err = called("fit", log, "--model", "gru", "--budget", "30steps", "--out", fitted)
    assert code == 2
    assert "holds a finished model" in err
    assert (fitted / "model.safetensors").stat().st_mtime_ns == before


def test_resume_takes_the_finished_model_of_the_same_run_alone(fitted, log, called):
    same = ("fit", log, "--model", "gru", "--budget", "30steps", "--out", fitted, "--resume")
    assert called(*same)[0] == 0
    code, _, err = called(*same, "--seed", "9")
    assert code == 2
    assert "another run" in err


def test_dry_run_says_what_it_would_cost_and_trains_nothing(log, tmp_path, answered):
    got = answered("fit", log, "--model", "gru", "--budget", "50steps", "--dry-run", "--out", tmp_path / "m")
    assert got["steps"] == 50
    assert got["parameters"] > 1000
    assert got["step_flops"] > 0
    assert got["memory"] > 16 * got["parameters"]
    assert not (tmp_path / "m").exists()


def test_unknown_models_are_refused_with_a_hint(log, called):
    code, _, err = called("fit", log, "--model", "attentionn")
    assert code == 2
    assert "did you mean attention" in err


def test_labels_make_a_classifier(tmp_path, answered):
    rows = "".join(f"{i},{'ab' * 5 if i % 2 else 'ba' * 4},{'odd' if i % 2 else 'even'}\n" for i in range(60))
    (tmp_path / "texts.csv").write_text("id,text,label\n" + rows)
    got = answered("fit", tmp_path / "texts.csv", "--model", "gru", "--budget", "40steps", "--out", tmp_path / "m")
    assert got["task"] == "classify"
    assert got["test"]["accuracy"] == 1.0
    assert got["trivial"]["accuracy"] < 1.0


def test_a_fit_at_the_default_budget_stays_below_a_minute():
    budgets = [Fit(file="x").budget, signature(fit).parameters["budget"].default]
    assert [parse(budget).seconds for budget in budgets] == [45, 45]


def test_a_number_is_told_with_its_unit(tmp_path, called, answered):
    rows = [f"c{c},{'ab'[c % 2]}{k},2026-01-{1 + c % 28:02d}T{3 * k:02d}:00:00" for c in range(40) for k in range(4)]
    path = tmp_path / "cases.csv"
    path.write_text("\n".join(["case,activity,time", *rows]))
    told = ("--target", "remaining", "--model", "annotated_transitions", "--out", tmp_path / "m")
    code, out, _ = called("fit", path, *told)
    assert code == 0
    assert "mean absolute error (hours) on " in out
    assert "inside their 80% interval" in out
    got = answered("predict", tmp_path / "m", path)["rows"]
    assert {row["unit"] for row in got} == {"hours"}
    assert [row["prediction"] for row in got] == [0] * 40
    code, _, err = called("fit", path, "--target", "price", "--out", tmp_path / "n")
    assert code == 2
    assert "What can be predicted: remaining" in err
