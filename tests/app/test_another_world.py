"""Data unlike those of the training: an answer all the same, with ids and order, and a word about what is unlike."""

import numpy as np
import polars as pl
import pytest

from seqloom.app.drift import told
from seqloom.app.fit import fit
from seqloom.app.fitted import Fitted
from seqloom.app.plan import load_data
from seqloom.cli import main
from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.sequences import Sequences
from seqloom.training.source import FileSource


@pytest.fixture(scope="module")
def model():
    return fit("sample:flights", "ngram")


@pytest.fixture(scope="module")
def held_out():
    return load_data("sample:flights").prepared.parts["test"]


def test_percentiles_of_the_held_out_part_are_even_and_silent(model, held_out):
    frame = model.score(held_out)
    assert frame.columns == ["id", "symbols", "bits", "bits_per_symbol", "percentile"]
    shares = frame["percentile"].to_numpy()
    assert np.nanmean(shares) == pytest.approx(50, abs=3)
    assert np.nanmax(shares) <= 100
    order = np.argsort(frame["bits_per_symbol"].to_numpy())
    assert np.corrcoef(np.arange(len(order)), shares[order])[0, 1] > 0.9
    assert model.warnings(held_out) == []


def test_new_symbols_new_users_and_long_sequences_are_answered_and_told(model, held_out):
    rng = np.random.default_rng(0)
    known = [held_out.sequence(i) for i in range(30)]
    strange = [[f"NEW-{rng.integers(9)}" if rng.random() < 0.5 else symbol for symbol in own] for own in known]
    long = [symbol for own in known for symbol in own] * 4
    for sequences, words in ((strange, "never seen in training"), ([*known, long], "longer than any in training")):
        ids = [f"user {number}" for number in range(len(sequences))][::-1]
        data = Sequences.of(sequences, ids=ids)
        assert model.predict(data, top=1)["id"].to_list() == ids
        assert model.score(data)["id"].to_list() == ids
        said = model.warnings(data)
        assert any(words in sentence for sentence in said)
    lines = told(said, "m")
    assert lines[0].startswith("warning: ")
    assert "--from m" in lines[-1]
    assert "together" in told(said, "m", network=False)[-1]


def test_the_command_line_warns_on_stderr_and_keeps_stdout_clean(model, held_out, tmp_path, capsys):
    model.save(tmp_path / "m")
    rows = [(f"c{i}", f"{symbol}!") for i in range(40) for symbol in held_out.sequence(i)]
    pl.DataFrame(rows, schema=["case", "activity"], orient="row").write_csv(tmp_path / "new.csv")
    for verb in ("predict", "score"):
        assert main([verb, str(tmp_path / "m"), str(tmp_path / "new.csv")]) == 0
        out, err = capsys.readouterr()
        assert "warning: 100 % of the symbols were never seen in training" in err
        assert "warning: these data have no time: events are taken in the order in which they stand" in err
        assert "warning" not in out


def test_a_table_without_the_columns_of_the_training_is_an_error_with_a_mend(model, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b,c\n1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match=r"other\.csv") as found:
        model.predict(path)
    assert found.value.mend


def test_a_model_of_an_earlier_version_has_no_percentiles_and_no_warnings(model, held_out):
    old = Fitted(model.engine, model.tokenizer, model.run, metrics={"test": {}})
    assert "percentile" not in old.score(held_out).columns
    assert old.warnings(held_out) == []


def test_score_knows_the_fit_and_costs_one_pass(model, held_out, monkeypatch):
    passes, score = [], model.engine.score
    monkeypatch.setattr(model.engine, "score", lambda examples: passes.append(1) or score(examples))
    rng = np.random.default_rng(1)
    words = sorted({symbol for i in range(len(held_out)) for symbol in held_out.sequence(i)})
    drawn = Sequences.of([rng.choice(words, 12).tolist() for _ in range(60)])
    frame, said = model.scored(drawn)
    assert frame.columns == ["id", "symbols", "bits", "bits_per_symbol", "percentile"]
    assert any("fit worse than the held-out part" in sentence for sentence in said)
    assert not any("fit worse" in sentence for sentence in model.warnings(drawn))
    assert len(passes) == 1
    assert model.scored(held_out)[1] == []


def test_values_far_outside_are_told_by_a_saved_model(tmp_path):
    rng = np.random.default_rng(2)
    series = [rng.normal(20, 5, 50) for _ in range(60)]
    fit(series, "random_walk", out=tmp_path / "m")
    model = Fitted.load(tmp_path / "m")
    asked = [own * 1000 for own in series]
    assert "lie outside what training saw" in model.warnings(asked)[0]
    assert model.warnings(series) == []
    assert any("training held out too few" in said for said in model.scored(asked)[1])


def log(count, cost, word, seed=3):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        [
            (f"c{case}", "abcd"[rng.integers(4)], float(rng.exponential(10)) * cost, word + "xyz"[rng.integers(3)])
            for case in range(count)
            for _ in range(6)
        ],
        schema=["case", "event", "cost", "place"],
        orient="row",
    )


def test_inputs_of_another_scale_and_new_words_are_told(tmp_path):
    path = tmp_path / "log.csv"
    log(120, 1, "").write_csv(path)
    source = FileSource(path=str(path), columns=Columns(case="case", event="event", inputs="cost,place"))
    model = fit(source, "gru", budget="5steps")
    assert model.warnings(log(100, 1, "", seed=4)) == []
    (far,) = model.warnings(log(100, 1e5, "", seed=4))
    assert "numbers of 'cost' lie outside what training saw" in far
    (new,) = model.warnings(log(100, 1, "new ", seed=4))
    assert new == "100 % of the steps hold no word that training saw in 'place' (0 % in its held-out part)"
