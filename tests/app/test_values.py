"""Real-valued sequences, and symbols with inputs, through the whole front door."""

import json

import numpy as np
import polars as pl
import pytest

import seqloom
from seqloom.app.compare import compare
from seqloom.app.fit import fit
from seqloom.app.plan import load_data
from seqloom.core.errors import ConfigError, DataError
from seqloom.data.columns import Columns
from seqloom.data.sequences import Sequences
from seqloom.training.source import FileSource

MEAN, HIGH = 20.0, 5.0


def waves(count=40, length=40, seed=0):
    """Sines of one period and any phase: a random walk is better than noise, and a model that sees two steps better."""
    rng = np.random.default_rng(seed)
    phase_N = rng.uniform(0, 6, count)
    return [MEAN + HIGH * np.sin(np.arange(length) / 3 + phase) + rng.normal(0, 0.2, length) for phase in phase_N]


@pytest.fixture(scope="module")
def series():
    return waves()


@pytest.fixture(scope="module", params=["gaussian", "quantiles"])
def network(request, series):
    return fit(series, "gru", budget="150steps", head=request.param)


@pytest.fixture(scope="module")
def walk(series):
    return fit(series, "random_walk")


def test_learning_beats_the_walk_and_the_walk_the_noise(network, walk):
    bits = [model.metrics["test"]["bits_per_value"] for model in (network, walk)]
    assert bits[0] < bits[1] - 0.5 < network.metrics["trivial"]["bits_per_value"] - 1
    assert 0.65 < network.metrics["test"]["accuracy"] < 0.92  # of 80 % intervals


def test_a_prediction_is_in_the_data_s_own_units(network, walk):
    fresh = waves(30, seed=1)
    asked = [y[:-1] for y in fresh]
    frame = network.predict(asked)
    assert frame.columns == ["id", "channel", "mean", "low", "high"]
    assert frame["id"].to_list() == [str(number) for number in range(1, 31)]
    last = np.array([y[-1] for y in fresh])
    assert np.abs(frame["mean"].to_numpy() - last).mean() < 0.8
    assert (frame["low"].to_numpy() < frame["high"].to_numpy()).all()
    own = walk.predict(asked)
    np.testing.assert_allclose(own["mean"], [y[-2] for y in fresh], rtol=1e-6)


def test_scores_are_those_of_the_test_part(walk, series):
    data = load_data(series).prepared
    frame = walk.score(data.parts["test"])
    want = walk.metrics["test"]["bits_per_value"]
    assert frame["bits"].sum() / frame["values"].sum() == pytest.approx(want)
    steps = walk.surprise(data.parts["test"])
    assert steps.columns == ["id", "position", "channel", "bits"]
    assert steps["bits"].sum() == pytest.approx(frame["bits"].sum())


def test_an_odd_value_shows_where_it_stands(network):
    (odd,) = waves(1, seed=2)
    odd[20] += 8 * HIGH
    worst = network.surprise([odd]).sort("bits", descending=True)["position"][0]
    assert worst == 21


def test_writing_goes_on_from_what_was_given_and_is_reproducible(network, walk):
    (given,) = waves(1, seed=3)
    for model in (network, walk):
        frame = model.generate(2, prompts=[given], limit=3, seed=5)
        assert frame["id"].to_list() == ["1/1"] * 3 + ["1/2"] * 3
        assert frame["position"].to_list() == [41, 42, 43] * 2
        assert frame.equals(model.generate(2, prompts=[given], limit=3, seed=5))
        assert not frame.equals(model.generate(2, prompts=[given], limit=3, seed=6))
        middle = model.generate(prompts=[given], limit=1, temperature=0)["value"][0]
        assert middle == pytest.approx(model.predict([given])["mean"][0], abs=1e-4)
    assert len(network.generate(limit=4)) == 4
    with pytest.raises(ConfigError, match="temperature must be 0"):
        network.generate(temperature=-1)


def test_step_by_step_is_the_whole(network, walk):
    (given,) = waves(1, length=5, seed=4)
    for model in (network, walk):
        state = None
        for value in given:
            ahead = model.step(value, state)
            state = ahead.state
        assert ahead.mean[0] == pytest.approx(model.predict([given])["mean"][0], abs=1e-4)
        assert model.step(None).low[0] < MEAN < model.step(None).high[0]
        with pytest.raises(ConfigError, match="a finite number for each of value"):
            model.step([1.0, 2.0])


def test_saved_and_loaded_it_says_the_same(network, walk, series, tmp_path):
    for number, model in enumerate((network, walk)):
        again = seqloom.load(model.save(tmp_path / str(number)))
        assert again.predict(series[:3]).equals(model.predict(series[:3]))
        assert again.embed(series[:2]).equals(model.embed(series[:2]))
    config = json.loads((tmp_path / "0" / "config.json").read_text())
    assert config["features"]["channels"][0]["mean"] == pytest.approx(np.concatenate(series[:]).mean(), abs=0.5)


def test_symbols_are_refused_where_values_were_learnt_and_the_other_way_round(walk, counted):
    with pytest.raises(DataError, match="holds symbols, and the model was trained on values"):
        walk.predict([["a", "b"]])
    with pytest.raises(DataError, match="holds values, and the model was trained on"):
        counted.predict([[0.5, 1.5]])


def test_a_comparison_on_values_knows_its_baselines_and_refuses_those_of_symbols(series, tmp_path):
    found = compare(series, ["random_walk", "gru", "ngram"], budget="60steps", out=tmp_path)
    names = [entry.name for entry in found.entries]
    assert names == ["gru", "random_walk", "white_noise", "ngram"]
    assert "ngram is a model of symbols, and these data are real values" in found.entries[-1].error
    assert found.measure == "bits_per_value"
    assert "the trivial answer (white_noise)" in found.sentence()
    again = compare(series, ["random_walk", "gru"], budget="60steps", out=tmp_path)
    assert again.figures()["models"][0]["bits_per_value"] == found.figures()["models"][0]["bits_per_value"]


def test_two_channels_and_one_long_series():
    rng = np.random.default_rng(0)
    long = np.cumsum(rng.normal(size=(1500, 2)), axis=0)
    model = fit([long], "random_walk")
    assert model.predict([long])["channel"].to_list() == ["value0", "value1"]
    np.testing.assert_allclose(model.predict([long])["mean"], long[-1], rtol=1e-6)
    assert model.generate(prompts=[long], limit=2).columns == ["id", "position", "value0", "value1"]
    network = fit([long], "attention", budget="20steps")
    assert network.run.batch.window  # cut, and each value predicted once
    assert network.metrics["test"]["counted"] == 2 * (1500 - int(1500 * 0.9) - 1)


def test_values_with_labels_are_told_apart():
    slow, fast = ([np.sin(np.arange(30) * f + p) for p in np.linspace(0, 6, 40)] for f in (0.2, 1.5))
    data = Sequences.of([*slow, *fast], labels=["slow"] * 40 + ["fast"] * 40)
    model = fit(data, "gru", budget="60steps")
    assert model.task == "classify"
    assert model.metrics["test"]["accuracy"] > 0.9
    assert set(model.predict(data)["class"]) == {"slow", "fast"}


def echoes(count=200):
    """The next symbol is the column beside the last one: without it nothing can be known."""
    rng = np.random.default_rng(0)
    tells = rng.integers(0, 4, (count, 8))
    rows = [
        (f"c{case}", "start" if step == 0 else "abcd"[tells[case, step - 1]], f"t{tells[case, step]}")
        for case in range(count)
        for step in range(8)
    ]
    return pl.DataFrame(rows, schema=["case", "event", "tell"], orient="row")


def test_inputs_beside_the_symbols_are_used_saved_and_missed(tmp_path):
    frame = echoes()
    path = tmp_path / "log.csv"
    frame.write_csv(path)
    source = FileSource(path=str(path), columns=Columns(case="case", event="event", inputs="tell"))
    told = fit(source, "gru", budget="150steps", out=tmp_path / "m")
    blind = fit(FileSource(path=str(path), columns=Columns(case="case", event="event")), "gru", budget="150steps")
    assert told.metrics["test"]["bits_per_symbol"] < blind.metrics["test"]["bits_per_symbol"] - 0.7
    again = seqloom.load(tmp_path / "m")
    assert again.predict(path, top=1)["symbol"].to_list() == told.predict(path, top=1)["symbol"].to_list()
    prefix = frame.group_by("case", maintain_order=True).head(3)
    right = again.predict(prefix, top=1)["symbol"].to_list()
    want = frame.group_by("case", maintain_order=True).agg(pl.col("event").get(3))["event"].to_list()
    assert np.mean([a == b for a, b in zip(right, want, strict=True)]) > 0.95
    bare = prefix.drop("tell")
    assert len(again.predict(bare, top=1)) == 200, "new data without the inputs still get an answer"
    assert len(again.generate(2, seed=1)) == 2


def test_an_input_that_is_no_column_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    echoes(20).write_csv(path)
    with pytest.raises(DataError, match="there is no input 'cost'"):
        fit(
            FileSource(path=str(path), columns=Columns(case="case", event="event", inputs="cost")),
            "gru",
            budget="2steps",
        )


def test_a_model_that_reads_no_inputs_says_so_on_its_card(tmp_path):
    path = tmp_path / "log.csv"
    echoes(40).write_csv(path)
    source = FileSource(path=str(path), columns=Columns(case="case", event="event", inputs="tell"))
    for name, words in (("ngram", "which this model does not read"), ("gru", "scaled by the training part alone")):
        fit(source, name, budget="2steps", out=tmp_path / name)
        assert f"numbers: tell, {words}" in (tmp_path / name / "card.md").read_text()


def test_a_test_file_that_lacks_an_input_is_the_one_that_is_named(tmp_path):
    echoes(40).write_csv(tmp_path / "train.csv")
    echoes(9).drop("tell").write_csv(tmp_path / "later.csv")
    columns = Columns(case="case", event="event", inputs="tell")
    source = FileSource(path=str(tmp_path / "train.csv"), test=str(tmp_path / "later.csv"), columns=columns)
    with pytest.raises(DataError, match=r"later\.csv: there is no input 'tell'"):
        fit(source, "gru", budget="2steps")
