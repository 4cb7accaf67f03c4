import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._season import autocorrelation, period_of
from seqloom.models.classical.seasonal_naive import SeasonalNaive

ONE = Sizes(channels=1, values=1)


def ragged(*rows):
    return Ragged.of([np.asarray(row, np.float64)[:, None] for row in rows], np.float64)


def seasons(period, length, noise=0.3, seed=0, walk=0.0):
    rng = np.random.default_rng(seed)
    season = rng.normal(size=period)
    return season[np.arange(length) % period] + rng.normal(0, noise, length) + np.cumsum(rng.normal(0, walk, length))


def test_by_hand():
    model = SeasonalNaive(ONE, SeasonalNaive.Config(period=3))
    own = ragged([1, 2, 3, 2, 2, 5, 1], [4, 6])
    model.fit(own)
    mean, scale = model.moments(own)
    first = np.mean([1, 2, 3, 2, 2, 5, 1, 4, 6])
    np.testing.assert_allclose(mean[:, 0], [first, 1, 2, 1, 2, 3, 2, first, 4])
    season = np.sqrt((1 + 0 + 4 + 1) / 4)
    walk = np.sqrt(np.mean(np.square([1, 1, -1, 0, 3, -4, 2])))
    np.testing.assert_allclose(scale[[1, 2, 3, 6, 8], 0], [walk, walk, season, season, walk])
    mean, scale = model.ahead(own, 7)
    np.testing.assert_allclose(mean[0, :, 0], [2, 5, 1, 2, 5, 1, 2])
    np.testing.assert_allclose(scale[0, :, 0], season * np.sqrt([1, 1, 1, 2, 2, 2, 3]))
    np.testing.assert_allclose(mean[1, :, 0], 6)
    np.testing.assert_allclose(scale[1, :, 0], walk * np.sqrt(np.arange(1, 8)))


@pytest.mark.parametrize(("period", "walk"), [(7, 0.0), (12, 0.2), (24, 0.0), (52, 0.1), (168, 0.0)])
def test_the_season_is_found_also_in_what_drifts(period, walk):
    assert period_of(ragged(seasons(period, period * 8, walk=walk))) == period


def test_many_short_series_share_a_season_and_two_seasons_take_the_one_that_explains_more():
    assert period_of(ragged(*[seasons(7, 22, seed=5) for _ in range(30)])) == 7
    day, week = seasons(24, 24 * 60, 0.0, 1), seasons(168, 24 * 60, 0.1, 2)
    assert period_of(ragged(day + 0.1 * week)) == 24
    assert period_of(ragged(0.5 * day + week)) == 168


@pytest.mark.parametrize("seed", range(5))
def test_noise_walks_trends_and_constants_have_no_season(seed):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=600)
    for own in (noise, np.cumsum(noise), np.arange(600.0), np.arange(600.0) ** 2 / 99 + noise, np.ones(50), noise[:3]):
        assert period_of(ragged(own)) == 1
    assert period_of(ragged()) == 1


@pytest.mark.parity
def test_autocorrelation_is_that_of_statsmodels():
    tools = pytest.importorskip("statsmodels.tsa.stattools")
    own = seasons(5, 200)
    mine = autocorrelation(ragged(own))[:30]
    want = tools.acf(np.diff(own), nlags=29, adjusted=True)
    np.testing.assert_allclose(mine, want, atol=1e-4)  # theirs keeps the linear trend


@pytest.mark.parity
def test_a_forecast_is_that_of_statsforecast():
    models = pytest.importorskip("statsforecast.models")
    own = seasons(6, 60)
    model = SeasonalNaive(ONE, SeasonalNaive.Config(period=6))
    model.fit(ragged(own))
    want = models.SeasonalNaive(season_length=6).forecast(own, 14)["mean"]
    np.testing.assert_allclose(model.ahead(ragged(own), 14)[0][0, :, 0], want)


def test_impossible_seasons_are_refused():
    with pytest.raises(ConfigError, match="at least 1 step"):
        SeasonalNaive(ONE, SeasonalNaive.Config(period=-1))
    model = SeasonalNaive(ONE)
    model.fit(ragged(seasons(7, 70)))
    assert model.period == 7
    with pytest.raises(CheckpointError, match="is none"):
        model.load({**model.arrays(), "period": np.array([2.5])})
