"""Several steps ahead: origins, the measures, the front door and the command line."""

import json
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

import seqloom
from seqloom.app import _horizon
from seqloom.app.compare import compare
from seqloom.app.fit import fit
from seqloom.app.judge import judge
from seqloom.app.plan import load_data
from seqloom.cli import main
from seqloom.core.errors import ConfigError, DataError
from seqloom.data.columns import Columns
from seqloom.data.sequences import Sequences
from seqloom.evaluation.mase import mase
from seqloom.training.source import FileSource

SEASON = 6


def waves(*lengths, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        t = np.arange(length) + rng.integers(SEASON)
        made.append(20 + 5 * np.sin(2 * np.pi * t / SEASON) + rng.normal(0, noise, length))
    return made


@pytest.fixture(scope="module")
def long():
    return waves(400)


@pytest.fixture(scope="module")
def naive(long):
    return fit(long, "seasonal_naive", horizon=4)


def test_origins_of_a_long_series_begin_at_the_cut_and_know_all_before_them(long):
    data = load_data(long, horizon=4).prepared
    found = _horizon.origins(data)
    begin = len(data.parts["train"].sequence(0)) + len(data.parts["valid"].sequence(0))
    assert found.past.lengths.tolist() == list(range(begin, 397, 4))
    mean_P, scale_P = data.features.moments
    for number, at in enumerate(range(begin, 397, 4)):
        np.testing.assert_allclose(found.came_NHP[number, :, 0] * scale_P + mean_P, long[0][at : at + 4], rtol=1e-5)
        past = found.past[number].values[:, 0]
        np.testing.assert_allclose(past * scale_P + mean_P, long[0][:at], rtol=1e-5)


def test_scaled_errors_are_those_of_the_evaluation_by_hand(long, naive):
    data = load_data(long, horizon=4).prepared
    assert naive.engine.model.period == SEASON
    begin = len(data.parts["train"].sequence(0)) + len(data.parts["valid"].sequence(0))
    at_N = range(begin, 397, 4)
    came = [long[0][at : at + 4] for at in at_N]
    told = [long[0][at - SEASON : at - SEASON + 4] for at in at_N]
    train = long[0][: len(data.parts["train"].sequence(0))]
    want = mase(told, came, [train] * len(came), season=SEASON)
    got = naive.metrics["test"]
    assert next(iter(got)) == "mase"
    assert got["mase"] == pytest.approx(want, rel=1e-4)
    assert got["units"] == len(came)
    assert got["counted"] == 4 * len(came)
    assert got["mase"] == naive.metrics["trivial"]["mase"]
    assert 0.65 < got["accuracy"] <= 0.95  # of 80 % intervals
    assert got["pinball"] > 0
    assert got["smape"] == pytest.approx(seqloom.evaluation.smape.smape(told, came), rel=1e-4)


def test_whole_test_series_are_new_and_measured_by_all_of_training():
    series = waves(*[60] * 30)
    data = load_data(series, horizon=5).prepared
    found = _horizon.origins(data)
    assert sorted(set(found.past.lengths.tolist())) == list(range(5, 60, 5))
    train = [data.parts["train"].sequence(at) for at in range(len(data.parts["train"]))]
    change = np.concatenate([np.abs(y[SEASON:] - y[:-SEASON]) for y in train]).mean()
    np.testing.assert_allclose(found.size_NP * data.features.moments[1], change, rtol=1e-4)


def test_origins_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(_horizon, "EACH", 3)
    assert _horizon._from(100, 0, 10) == [10, 50, 90]
    assert _horizon._from(100, 40, 10) == [40, 60, 90]
    assert _horizon._from(12, 0, 20) == [6]
    assert _horizon._from(1, 0, 3) == []
    monkeypatch.setattr(_horizon, "MOST", 4)
    assert len(_horizon.origins(load_data(waves(*[60] * 30), horizon=5).prepared).past) == 4


def test_a_perfect_and_a_useless_model_are_told_apart(long):
    found = compare(long, ["white_noise", "exponential_smoothing", "linear"], horizon=4)
    names = [entry.name for entry in found.entries]
    assert names[-1] == "white_noise"
    assert "seasonal_naive" in names, "the trivial answer is always shown"
    linear = next(entry for entry in found.entries if entry.name == "linear").arms[0].model()
    assert linear.engine.model.weight_PHK.shape[1] == 4, "it has a map for every step that was asked for"
    assert found.measure == "mase"
    assert "mean absolute scaled error" in found.sentence()
    assert set(found.figures()["models"][0]) >= {"mase", "smape", "pinball", "accuracy", "low", "high"}
    assert found.entries[0].row.mean < 0.9 < 5 < found.entries[-1].row.mean


def test_finished_arms_are_read_again_with_every_measure(long, tmp_path):
    first, again = (compare(long, ["gru"], horizon=3, budget="10steps", out=tmp_path).figures() for _ in range(2))
    assert first["models"] == again["models"]
    other = compare(long, ["gru"], horizon=2, budget="10steps", out=tmp_path).figures()
    assert other["models"][0]["mase"] != first["models"][0]["mase"]


def test_a_network_learns_to_forecast_and_predicts_as_far_as_it_was_asked_to(tmp_path):
    series = waves(*[40] * 40, noise=0.2)
    model = fit(series, "gru", budget="150steps", horizon=5, out=tmp_path / "m")
    assert model.metrics["test"]["mase"] < 1.1
    assert 0.6 < model.metrics["test"]["accuracy"] < 0.97
    fresh = waves(40, 38, noise=0.0, seed=9)
    frame = model.predict([y[:-5] for y in fresh])
    assert frame.columns == ["id", "step", "channel", "mean", "low", "high"]
    assert frame["id"].to_list() == ["1"] * 5 + ["2"] * 5
    assert frame["step"].to_list() == [1, 2, 3, 4, 5] * 2
    want = np.concatenate([y[-5:] for y in fresh])
    assert np.abs(frame["mean"].to_numpy() - want).mean() < 1.5
    assert (frame["low"].to_numpy() < frame["high"].to_numpy()).all()
    again = seqloom.load(tmp_path / "m")
    assert again.predict([y[:-5] for y in fresh]).equals(frame)
    assert len(again.predict(series[:1], horizon=9)) == 9
    assert "mean absolute scaled error" in (tmp_path / "m" / "card.md").read_text()
    more = fit(series, start=tmp_path / "m", budget="2steps")
    assert more.run.horizon == 5
    assert "mase" in more.metrics["test"]


def test_a_model_of_the_next_value_forecasts_too_and_channels_stand_in_order(long):
    both = [np.stack([long[0], -long[0]], 1)]
    model = fit(both, "seasonal_naive")
    assert "bits_per_value" in model.metrics["test"]
    frame = model.predict([both[0][:60]], horizon=2)
    assert frame["channel"].to_list() == ["value0", "value1"] * 2
    np.testing.assert_allclose(frame["mean"], both[0][54:56].ravel(), rtol=1e-5)
    assert model.predict([both[0][:60]]).columns == ["id", "channel", "mean", "low", "high"]


def test_inputs_are_withheld_in_training_and_unknown_ahead():
    columns = Columns(value="temp_max", time="date", inputs="wind,temp_min")
    model = fit(FileSource(path="sample:seattle", columns=columns), "gru", budget="5steps", horizon=3)
    assert model.run.objective.predicted == 1
    assert model.engine.blueprint.sizes.channels == 6
    frame = model.predict(FileSource(path="sample:seattle", columns=columns))
    assert frame["channel"].to_list() == ["temp_max"] * 3
    assert frame["mean"].is_finite().all()


def test_what_cannot_be_forecast_is_refused_in_words(long, counted):
    with pytest.raises(ConfigError, match="how many steps ahead: --horizon"):
        fit(long, "linear", task="forecast")
    with pytest.raises(ConfigError, match="belongs to the task forecast, not to next"):
        fit(long, "linear", task="next", horizon=3)
    with pytest.raises(DataError, match="a forecast is of real values"):
        fit([["a", "b"]] * 30, "linear", horizon=3)
    with pytest.raises(ConfigError, match="belongs to a model of real values"):
        counted.predict([["a"]], horizon=3)
    with pytest.raises(DataError, match="no test sequence has a value before"):
        fit([[1.5], [2.5], [0.5], [1.0]] * 5, "random_walk", horizon=3)
    holes = [y.copy() for y in waves(*[20] * 10)]
    holes[3][7] = np.nan
    with pytest.raises(DataError, match=r"NaN|number|missing"):
        fit(holes, "linear", horizon=3)


def test_short_constant_and_uneven_series_get_an_answer_and_a_note():
    short = load_data(waves(*[8] * 30), horizon=12)
    assert any("too short for 12 steps ahead" in note for note in short.notes)
    model = fit(waves(*[8] * 30), "linear", horizon=12)
    assert np.isfinite(model.metrics["test"]["mase"])
    assert len(model.predict(waves(8))) == 12
    constant = fit([np.full(50, 3.0)] * 12, "exponential_smoothing", horizon=4)
    assert constant.metrics["test"]["mase"] == 0
    begin, rng = datetime(2024, 1, 1), np.random.default_rng(0)
    days = np.cumsum(rng.integers(1, 9, 120)).tolist()
    for steps, said in ((days, True), (range(120), False)):
        times = [begin + timedelta(days=int(day)) for day in steps]
        data = Sequences.of(waves(120), times=[times])
        notes = load_data(data, horizon=4).notes
        assert any("not evenly spaced" in note for note in notes) == said


def test_a_judgement_does_not_depend_on_how_the_training_part_was_cut(long):
    loaded = load_data(waves(700), horizon=4)
    model = fit(waves(700), "attention", budget="3steps", horizon=4)
    assert model.run.batch.window
    again = judge(model.engine, loaded.prepared)
    assert again.figures()["mase"] == pytest.approx(model.metrics["test"]["mase"])


def test_on_the_command_line(tmp_path, capsys):
    path, (y,) = tmp_path / "load.csv", waves(300)
    begin = datetime(2024, 1, 1)
    frame = pl.DataFrame({"date": [begin + timedelta(days=k) for k in range(300)], "load": y})
    frame.write_csv(path)
    asked = ["fit", str(path), "--model", "linear", "--horizon", "7", "--out", str(tmp_path / "m"), "--json"]
    assert main(asked) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["test"]["mase"] < 1
    assert "times the error of repeating the last season" in told.err
    assert main(["predict", str(tmp_path / "m"), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id,step,channel,mean,low,high"
    assert len(lines) == 8
    assert main(["predict", str(tmp_path / "m"), str(path), "--horizon", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    asked = ["compare", str(path), "--models", "linear", "--task", "forecast", "--horizon", "7"]
    assert main([*asked, "--out", str(tmp_path / "c")]) == 0
    assert "mase" in capsys.readouterr().out
    assert main(["fit", str(path), "--task", "forecast"]) == 2
    assert main(["fit", str(path), "--model", "gru", "--horizon", "7", "--dry-run"]) == 0
    assert "parameters" in capsys.readouterr().out
