"""Figures by prefix length through the front door, beside a loop over every single surprise."""

import math
from collections import defaultdict

import numpy as np
import polars as pl
import pytest

from seqloom.app import _by_prefix
from seqloom.app.compare import compare
from seqloom.app.fitted import Fitted
from seqloom.app.judge import Judgement, judge
from seqloom.app.plan import load_data
from seqloom.core.errors import SeqloomError
from seqloom.core.files import json_text
from seqloom.data.sequences import Sequences

COLUMNS = ["from", "to", "sequences", "symbols", "bits", "low", "high", "accuracy"]


@pytest.fixture(scope="module")
def found(cycles, tmp_path_factory):
    return compare(cycles, ["ngram", "gru"], budget="10steps", seeds=2, out=tmp_path_factory.mktemp("arms"))


@pytest.fixture(scope="module")
def labelled():
    words = ["ab" * (2 + k % 9) if k % 3 else "ba" * (2 + k % 9) for k in range(150)]
    return Sequences.of(words, labels=["most" if k % 3 else "few" for k in range(150)])


def by_hand(surprise):
    """Bits by prefix length, one length at a time."""
    found = defaultdict(list)
    for position, bits in surprise.select("position", "bits").iter_rows():
        found[position - 1].append(bits)
    return found


def test_each_model_has_the_figures_of_its_surprise(found):
    part = found.loaded.prepared.parts["test"]
    frame = found.by_prefix_length()
    assert frame.columns == ["model", *COLUMNS]
    assert frame["model"].unique(maintain_order=True).to_list() == [entry.name for entry in found.entries]
    for entry in found.entries:
        want = [by_hand(arm.model().surprise(part)) for arm in entry.arms]
        own = frame.filter(pl.col("model") == entry.name)
        for first, last, sequences, symbols, bits in own.select(COLUMNS[:5]).iter_rows():
            inside = [[b for k in range(first, last + 1) for b in seed[k]] for seed in want]
            assert symbols == len(inside[0])
            assert sequences == sum(length + 1 > first for length in part.lengths)
            assert bits == pytest.approx(np.mean(inside))
        assert (own["bits"] * own["symbols"]).sum() / own["symbols"].sum() == pytest.approx(entry.row.mean)
        assert (own["accuracy"] * own["symbols"]).sum() / own["symbols"].sum() == pytest.approx(entry.accuracy)
        assert (own["low"] <= own["bits"]).all()
        assert (own["bits"] <= own["high"]).all()


def test_finished_arms_keep_them(found, cycles):
    folder = found.entries[0].arms[0].folder.parent.parent
    again = compare(cycles, ["ngram", "gru"], budget="10steps", seeds=2, out=folder)
    assert again.by_prefix_length().equals(found.by_prefix_length())
    assert again.figures()["by_prefix_length"] == found.by_prefix_length().to_dicts()
    assert "NaN" not in json_text(again.figures())


def test_an_arm_of_an_earlier_version_has_none(found):
    judgement = found.entries[0].arms[0].judgement
    old = {key: own for key, own in judgement.arrays().items() if not key.startswith(_by_prefix.PREFIX)}
    read = Judgement.of("next", old)
    assert (read.bits, read.accuracy, read.by_prefix) == (judgement.bits, judgement.accuracy, {})
    assert _by_prefix.frame({"old": read.by_prefix}, "next").columns == ["model", *COLUMNS]
    assert _by_prefix.average([read.by_prefix, judgement.by_prefix]) == {}


def test_a_fitted_model_tells_them_of_any_data(found):
    best = next(entry for entry in found.entries if entry.name == "ngram")
    own = best.chosen.model().by_prefix_length(found.loaded.prepared.parts["test"])
    want = found.by_prefix_length().filter(pl.col("model") == "ngram").drop("model")
    assert own.equals(want)


def test_pieces_of_one_long_sequence_are_drawn_and_what_goes_on_begins_at_one():
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("abc"), 4000))
    found = compare(Sequences.of([text]), ["ngram"])
    own = found.by_prefix_length().filter(pl.col("model") == "ngram")
    assert own["from"][0] == 1  # the test part goes on from the validation part: its first symbol is read alone
    assert own["symbols"].sum() == found.entries[0].arms[0].judgement.counted
    assert own["low"].is_not_null().all()


def test_real_values_go_by_steps_not_by_channels():
    rng = np.random.default_rng(0)
    rows = Sequences.of([rng.standard_normal((7 + k % 3, 2)) for k in range(60)])
    found = compare(rows, ["random_walk"])
    part = found.loaded.prepared.parts["test"]
    own = found.by_prefix_length().filter(pl.col("model") == "random_walk")
    walk = next(entry for entry in found.entries if entry.name == "random_walk")
    want = by_hand(walk.chosen.model().surprise(part))
    assert own["symbols"].to_list()[:6] == [2 * len(part)] * 6
    assert own["bits"].to_list()[:6] == pytest.approx([np.mean(want[k]) for k in range(6)])


def test_classes_go_by_the_length_of_the_sequence(labelled):
    found = compare(labelled, ["ngram"])
    part = found.loaded.prepared.parts["test"]
    for entry in found.entries:
        own = found.by_prefix_length().filter(pl.col("model") == entry.name)
        bits_N = entry.arms[0].judgement.bits_N
        for first, last, _, symbols, bits in own.select(COLUMNS[:5]).iter_rows():
            inside = (first <= part.lengths) & (part.lengths <= last)
            assert (symbols, bits) == (inside.sum(), pytest.approx(bits_N[inside].mean()))
        assert own["symbols"].sum() == len(part)
    model = found.entries[0].chosen.model()
    assert model.by_prefix_length(part)["symbols"].sum() == len(part)
    with pytest.raises(SeqloomError, match="no labels"):
        model.by_prefix_length(["abab"])


def test_forecasts_go_by_steps_ahead():
    """A random walk of a random walk is off by sqrt(h), h steps ahead."""
    rng = np.random.default_rng(0)
    walks = Sequences.of([np.cumsum(rng.standard_normal(80)) for _ in range(60)])
    found = compare(walks, ["random_walk"], horizon=4)
    own = found.by_prefix_length().filter(pl.col("model") == found.entries[0].name)
    assert own.columns == ["model", "from", "to", "sequences", "symbols", "mase", "low", "high", "accuracy"]
    assert own["from"].to_list() == own["to"].to_list() == [1, 2, 3, 4]
    for step, low, high in own.select("from", "low", "high").iter_rows():
        assert low < math.sqrt(step) < high
    one = found.entries[0].arms[0].judgement
    assert (own["mase"] * own["symbols"]).sum() / own["symbols"].sum() == pytest.approx(one.bits)
    assert (own["accuracy"] * own["symbols"]).sum() / own["symbols"].sum() == pytest.approx(one.accuracy)


def test_what_nobody_looked_at_is_left_out(cycles, counted: Fitted, monkeypatch):
    data = load_data(cycles).prepared
    whole = judge(counted.engine, data)
    monkeypatch.setattr("seqloom.app._engines.LOOKED_AT", int(whole.counted * data.sizes.vocabulary / 3))
    part = judge(counted.engine, data)
    wholes, parts = (_by_prefix.frame({"": one.by_prefix}, "next") for one in (whole, part))
    assert parts.drop("accuracy").equals(wholes.drop("accuracy"))
    assert 0 < part.by_prefix["right"].symbols_B.sum() < whole.by_prefix["right"].symbols_B.sum()


def test_the_table_of_a_comparison_carries_them(found, tmp_path):
    import json

    from seqloom.app.report import write_table

    read = json.loads(write_table(found, tmp_path / "table.json").read_text())
    assert read["by_prefix_length"] == found.by_prefix_length().to_dicts()
    assert read["by_prefix_length"][0]["from"] == 0
