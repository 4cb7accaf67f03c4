import io
import json

import numpy as np
import polars as pl
import pytest

from seqloom.app.defaults import Facts, model_of, parameters_of, shape_for
from seqloom.app.fit import fit
from seqloom.app.plan import load_data
from seqloom.core.errors import CheckpointError, ConfigError, DataError
from seqloom.core.sizes import Sizes
from seqloom.data.columns import Columns
from seqloom.data.sequences import Sequences
from seqloom.training.loop import CHECKPOINT, Interrupted, Loop
from seqloom.training.source import FileSource


@pytest.mark.parametrize("mixers", ["gru", "lstm", "linear_attention", "s4d", "s4d*3,attention"])
@pytest.mark.parametrize("task", ["next", "classify"])
def test_models_are_of_one_size(mixers, task):
    facts = Facts(symbols=20_000, longest=60, sizes=Sizes(vocabulary=200, classes=3), task=task)
    shape = shape_for(facts)
    reference = parameters_of(model_of("attention", facts, shape), facts.sizes)
    got = parameters_of(model_of(mixers, facts, shape), facts.sizes)
    assert got == pytest.approx(
        reference, rel=0.2 if "," in mixers else 0.12
    )  # more layers, coarser steps of the width


def test_bigger_data_get_bigger_models():
    sizes = Sizes(vocabulary=100)
    widths = [shape_for(Facts(symbols=n, longest=50, sizes=sizes)).width for n in (1_000, 1_000_000, 10_000_000)]
    assert widths == sorted(set(widths))
    assert shape_for(Facts(symbols=1_000, longest=5_000, sizes=sizes)).batch.window > 0
    assert shape_for(Facts(symbols=1_000, longest=50, sizes=sizes)).batch.window == 0


def test_an_interrupted_fit_goes_on_to_the_same_bytes(cycles, tmp_path, monkeypatch):
    whole = fit(cycles, "gru", budget="40steps", out=tmp_path / "whole")
    real = Loop._one_step

    def stops(self):
        if self.step == 25:
            self._save()
            raise Interrupted("stopped")
        return real(self)

    monkeypatch.setattr(Loop, "_one_step", stops)
    with pytest.raises(Interrupted):
        fit(cycles, "gru", budget="40steps", out=tmp_path / "cut")
    monkeypatch.setattr(Loop, "_one_step", real)
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    with pytest.raises(ConfigError, match="unfinished"):
        fit(cycles, "gru", budget="40steps", out=tmp_path / "cut")
    with pytest.raises(CheckpointError, match="another run"):
        fit(cycles, "gru", budget="40steps", seed=8, out=tmp_path / "cut", resume=True)
    again = fit(cycles, "gru", budget="40steps", out=tmp_path / "cut", resume=True)
    names = ("model.safetensors", "config.json", "vocabulary.json", "run.json", "metrics.json")
    assert all((tmp_path / "cut" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)
    assert again.run == whole.run


def test_seconds_become_steps_that_are_written_down(cycles, tmp_path):
    fitted = fit(cycles, "gru", budget="1s", out=tmp_path / "m")
    steps = fitted.run.budget.steps
    assert steps
    assert fitted.run.budget.seconds is None
    timing = json.loads((tmp_path / "m" / "timing.json").read_text())
    assert timing["steps"] == steps
    assert timing["memory"] > 4 * 4 * timing["parameters"]


def test_a_test_file_is_the_test_part(tmp_path):
    (tmp_path / "train.txt").write_text("abc\n" * 30)
    (tmp_path / "test.txt").write_text("xyz\n" * 4)
    loaded = load_data(tmp_path / "train.txt", test=tmp_path / "test.txt")
    assert [len(loaded.prepared.parts[name]) for name in ("train", "valid", "test")] == [27, 3, 4]
    assert loaded.prepared.parts["test"].sequence(0) == "xyz"
    assert "x" not in loaded.prepared.tokenizer.vocabulary
    fitted = fit(tmp_path / "train.txt", "ngram", test=tmp_path / "test.txt")
    assert fitted.metrics["unknown_symbols"] == 1.0


def test_nothing_is_learnt_from_the_test_part():
    data = Sequences.of([["a", "b"]] * 9 + [["new", "b"]] * 3)
    loaded = load_data(data)
    train = {s for row in loaded.prepared.parts["train"].table["sequence"].to_pylist() for s in row}
    assert set(loaded.prepared.tokenizer.vocabulary.symbols) == train


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("abc\n" * 20)
    source = load_data(path).base.data
    assert isinstance(source, FileSource)
    path.write_text("abd\n" * 20)
    with pytest.raises(DataError, match="has changed"):
        source.read()


def test_frames_and_lists_are_data_too():
    frame = pl.DataFrame({"case": np.repeat(np.arange(30), 4), "event": ["a", "b", "c", "d"] * 30})
    for data in (frame, [["a", "b", "c"]] * 30, ["abc"] * 30):
        fitted = fit(data, "ngram")
        assert fitted.metrics["test"]["counted"] > 0
        assert len(fitted.run.data.fingerprint) == 64


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ([], {}, "no sequences|no sequence"),
        ([[0.5, 1.5]] * 9, {"model": "ngram"}, "model of symbols"),
        (["ab"] * 9, {"model": "random_walk"}, "model of real values"),
        ([[0.5, 1.5]] * 9, {"head": "normal"}, "no head"),
        (["ab"] * 9, {"task": "classify"}, "no column of classes"),
        (["ab"] * 9, {"task": "guess"}, "no task"),
        (["ab"] * 9, {"budget": "soon"}, "no budget"),
        (["ab"] * 9, {"device": "abacus"}, "no device"),
        (["ab"] * 9, {"model": "gru*0"}, r"\*"),
        (["ab"] * 9, {"model": "ngrma"}, "did you mean ngram"),
    ],
)
def test_bad_input_is_told(data, options, words):
    with pytest.raises((ConfigError, DataError), match=words):
        fit(data, **{"model": "gru", "budget": "2steps", **options})


def test_one_class_is_no_classification():
    with pytest.raises(DataError, match="fewer than two classes"):
        fit(Sequences.of(["ab"] * 9, labels=["x"] * 9), "ngram")


def test_a_finished_folder_is_safe(cycles, tmp_path):
    fit(cycles, "ngram", out=tmp_path / "m")
    with pytest.raises(ConfigError, match="finished model"):
        fit(cycles, "ngram", out=tmp_path / "m")


def test_going_on_from_a_model_begins_where_it_ended(network, cycles, tmp_path):
    network.save(tmp_path / "old")
    other = cycles.select(range(24))
    longer = fit(other, start=tmp_path / "old", budget="1steps", out=tmp_path / "new")
    fresh = fit(other, "gru", budget="1steps")
    assert longer.metrics["test"]["bits_per_symbol"] < fresh.metrics["test"]["bits_per_symbol"] - 0.2
    assert longer.tokenizer.vocabulary == network.tokenizer.vocabulary
    new = fit([["a", "b", "zebra"]] * 20, start=tmp_path / "old", budget="30steps")
    assert new.tokenizer.vocabulary == network.tokenizer.vocabulary
    assert new.metrics["unknown_symbols"] == pytest.approx(1 / 3)


def test_going_on_contradicts_other_options(network, counted, cycles, tmp_path):
    network.save(tmp_path / "net")
    counted.save(tmp_path / "counts")
    for options, words in (
        ({"start": tmp_path / "counts"}, "counts anew"),
        ({"start": tmp_path / "net", "model": "gru"}, "leave --model away"),
        ({"start": tmp_path / "net", "task": "classify"}, "task next"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit(cycles, budget="1steps", **options)


def test_data_without_anything_to_test_on_are_refused_before_training():
    for data in (["a"], [["x", "y"], ["x"]]):
        with pytest.raises(DataError, match="none is left to test on"):
            fit(data, "gru", budget="1steps")
    assert fit(["ab"] * 3, "unigram").metrics["test"]["counted"] > 0


def test_names_that_are_no_model_say_why():
    for name, words in (
        ("ngram,gru", "ngram is a whole model"),
        ("s4d*0", "positive number of layers"),
        ("s4d*x", "positive number of layers"),
        ("GRU", "did you mean gru"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit(["ab"] * 9, name)


def test_budgets_and_data_of_the_wrong_kind_are_user_errors():
    with pytest.raises(ConfigError, match="5 is no budget"):
        fit(["ab"] * 9, "gru", budget=5)
    with pytest.raises(DataError, match="empty sequences alone"):
        fit([""] * 9, "ngram")


def test_columns_are_remembered_for_other_forms_of_the_same_table(tmp_path, monkeypatch):
    rows = {"order_id": [k // 3 for k in range(60)], "user": ["u", "v"] * 30, "status": [*"abc"] * 20}
    frame = pl.DataFrame(rows)
    frame.write_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr("sys.stdin", _Stdin(frame.write_csv()))
    model = fit(FileSource(path="-", columns=Columns(case="order_id")), "ngram", out=tmp_path / "m")
    assert model.run.data.columns.event == "status"
    assert model.score(str(tmp_path / "log.parquet"))["id"].to_list() == [str(k) for k in range(20)]


def test_new_data_on_standard_input_need_no_classes(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("body,stars\n" + "good,5\nbad bad,1\n" * 20)
    model = fit(FileSource(path=str(tmp_path / "t.csv"), columns=Columns(label="stars")), "ngram")
    monkeypatch.setattr("sys.stdin", _Stdin("id,body\nx,bad bad\ny,good\n"))
    assert model.predict("-")["class"].to_list() == ["1", "5"]


class _Stdin:
    """Standard input that holds a text."""

    def __init__(self, text):
        self.buffer = io.BytesIO(text.encode())
