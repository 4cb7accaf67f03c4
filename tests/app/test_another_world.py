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
from seqloom.data.sequences import Sequences


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
