import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.exponential_smoothing import ExponentialSmoothing
from seqloom.models.classical.random_walk import RandomWalk

ONE = Sizes(channels=1, values=1)


def ragged(*rows):
    return Ragged.of([np.asarray(row, np.float64)[:, None] for row in rows], np.float64)


def paced(pace, period=1):
    model = ExponentialSmoothing(ONE, ExponentialSmoothing.Config(period=period))
    model.fit(ragged(np.random.default_rng(0).normal(size=40)))
    model.load({**model.arrays(), "pace_P4": np.array([pace])})
    return model


def local_level(alpha, length, seed=0):
    """y = level + noise, the level moves by alpha times the noise: the process that simple smoothing is right for."""
    noise = np.random.default_rng(seed).normal(size=length)
    return np.concatenate([[0.0], np.cumsum(alpha * noise)[:-1]]) + noise


def test_simple_smoothing_by_hand():
    own = [3.0, 5.0, 4.0, 8.0]
    mean, _ = paced((0.5, 0, 0, 1)).moments(ragged(own))
    np.testing.assert_allclose(mean[1:, 0], [3, 4, 4])
    ahead, scale = paced((0.5, 0, 0, 1)).ahead(ragged(own), 3)
    np.testing.assert_allclose(ahead[0, :, 0], 6)
    np.testing.assert_allclose(scale[0, :, 0] / scale[0, 0, 0], np.sqrt([1, 1.25, 1.5]))


@pytest.mark.parity
@pytest.mark.parametrize(("pace", "period"), [((0.4, 0.1, 0, 0.9), 1), ((0.3, 0.05, 0.2, 0.85), 4)])
def test_means_and_variances_are_those_of_statsmodels_from_the_same_state(pace, period):
    ets = pytest.importorskip("statsmodels.tsa.exponential_smoothing.ets")
    pandas = pytest.importorskip("pandas")
    y = np.random.default_rng(1).normal(size=60).cumsum() + 3 * np.sin(np.arange(60) * np.pi / 2)
    model = paced(pace, period)
    mean, _ = model.moments(ragged(y))
    begin = y[:period].mean()
    state = {"initial_level": begin, "initial_trend": 0.0}
    values = [pace[0], pace[1], *([pace[2]] if period > 1 else []), pace[3], begin, 0.0]
    if period > 1:
        season = list(y[:period] - begin)  # statsmodels counts them from the step before the first one backwards
        state["initial_seasonal"], values = season, [*values, *season[::-1]]
    theirs = ets.ETSModel(
        pandas.Series(y[period:]),
        error="add",
        trend="add",
        damped_trend=True,
        seasonal="add" if period > 1 else None,
        seasonal_periods=period if period > 1 else None,
        initialization_method="known",
        **state,
    )
    fixed = values[: 4 if period > 1 else 3]
    result = theirs.smooth([*fixed, *values[len(fixed) :]] if len(theirs.start_params) > len(fixed) else fixed)
    np.testing.assert_allclose(mean[period:, 0], result.fittedvalues, atol=1e-8)
    ahead, scale = model.ahead(ragged(y), 9)
    np.testing.assert_allclose(ahead[0, :, 0], result.forecast(9), atol=1e-8)
    variance = result.get_prediction(start=60 - period, end=68 - period).forecast_variance
    np.testing.assert_allclose(scale[0, :, 0] ** 2 / scale[0, 0, 0] ** 2, variance / np.asarray(variance)[0], rtol=1e-6)


def test_the_pace_of_a_known_process_is_found():
    model = ExponentialSmoothing(ONE, ExponentialSmoothing.Config(trend=False))
    model.fit(ragged(*[local_level(0.3, 500, seed) for seed in range(8)]))
    assert model.pace_P4[0, 0] == pytest.approx(0.3, abs=0.04)
    assert model.pace_P4[0, 1] == 0
    assert model.scale_P[0] == pytest.approx(1.0, abs=0.03)
    _, scale = model.ahead(ragged(local_level(0.3, 50, 99)), 20)
    assert scale[0, 19, 0] == pytest.approx(np.sqrt(1 + 19 * 0.09), rel=0.1)


def test_a_season_is_followed_and_a_trend_goes_on():
    rng = np.random.default_rng(0)
    t = np.arange(200)
    own = 0.05 * t + 2 * np.sin(2 * np.pi * t / 12) + rng.normal(0, 0.1, 200)
    model = ExponentialSmoothing(ONE)
    model.fit(ragged(own[:150]))
    assert model.period == 12
    walk = RandomWalk(ONE)
    walk.fit(ragged(own[:150]))
    got, naive = (np.abs(m.ahead(ragged(own[:150]), 24)[0][0, :, 0] - own[150:174]).mean() for m in (model, walk))
    assert got < 0.35
    assert naive > 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="at least 1 step"):
        ExponentialSmoothing(ONE, ExponentialSmoothing.Config(period=-2))
    model = paced((0.5, 0, 0, 1))
    with pytest.raises(CheckpointError, match="between 0 and 1"):
        model.load({**model.arrays(), "pace_P4": np.array([[1.5, 0, 0, 1]])})


def far_error(model, y, horizon):
    """Mean squared error of forecasts of up to ``horizon`` steps, from origins a quarter of it apart."""
    period = int(model.period[0])
    errors = []
    for at in range(period, len(y), max(1, horizon // 4)):
        told = model.ahead(ragged(y[:at]), min(horizon, len(y) - at))[0][0, :, 0]
        errors.extend((y[at : at + len(told)] - told) ** 2)
    return np.mean(errors)


def test_paces_are_chosen_for_the_steps_that_are_forecast():
    """A season under a wandering level: following every step is best one step ahead, and bad a season ahead."""
    rng = np.random.default_rng(3)
    season = np.tile(3 * np.sin(np.arange(12) * np.pi / 6), 20)
    noise = rng.normal(size=240)
    y = season + 10 * np.cumsum(0.02 * noise) + 0.9 * np.convolve(noise, 0.7 ** np.arange(8))[:240]
    near, far = (
        ExponentialSmoothing(ONE, ExponentialSmoothing.Config(period=12, horizon=horizon)) for horizon in (1, 12)
    )
    for model in (near, far):
        model.fit(ragged(y))
    assert far_error(near, y, 1) < far_error(far, y, 1)
    assert far_error(far, y, 12) < 0.9 * far_error(near, y, 12)
    with pytest.raises(ConfigError, match="horizon"):
        ExponentialSmoothing(ONE, ExponentialSmoothing.Config(horizon=0))
