import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation.mase import mase


@pytest.mark.parity
@pytest.mark.parametrize("season", [1, 4])
def test_is_a_ratio_of_absolute_errors_as_sklearn_counts_them(season):
    from sklearn.metrics import mean_absolute_error

    rng = np.random.default_rng(0)
    train = [rng.normal(size=size) for size in (30, 17, 9)]
    targets_NH, forecasts_NH = rng.normal(size=(2, 3, 6))
    want = [
        mean_absolute_error(y, f) / mean_absolute_error(x[season:], x[:-season])
        for y, f, x in zip(targets_NH, forecasts_NH, train, strict=True)
    ]
    np.testing.assert_allclose(mase(forecasts_NH, targets_NH, train, season=season, each=True), want, rtol=1e-12)
    ragged = Ragged.of(train, np.float64)
    assert mase(forecasts_NH, targets_NH, ragged, season=season) == pytest.approx(np.mean(want), rel=1e-12)


def test_the_naive_forecast_of_a_random_walk_costs_about_one_whatever_the_unit():
    walks = np.random.default_rng(1).normal(size=(200, 101)).cumsum(1) * np.geomspace(1e-3, 1e3, 200)[:, None]
    assert mase(walks[:, -2:-1], walks[:, -1:], list(walks[:, :-1])) == pytest.approx(1, abs=0.15)


def test_a_series_with_nothing_to_scale_by_is_left_out():
    train = [[5.0, 5.0, 5.0], [1.0, 2.0, 4.0], [7.0]]
    got = mase(np.zeros((3, 1)), np.ones((3, 1)), train, each=True)
    np.testing.assert_array_equal(got, [np.nan, 1 / 1.5, np.nan])
    assert mase(np.zeros((3, 1)), np.ones((3, 1)), train) == 1 / 1.5
    with pytest.raises(ConfigError, match="no training series changes"):
        mase([[0.0]], [[1.0]], [[5.0, 5.0]])
    with pytest.raises(ConfigError, match="nothing can be measured"):
        mase([[0.0], [0.0]], [[1.0], [np.nan]], train[:2])


def test_gaps_and_divergence():
    assert mase([[0.0, 0.0]], [[np.nan, 3.0]], [[1.0, np.nan, 2.0, 4.0]]) == 1.5
    assert mase([[np.inf]], [[3.0]], [[1.0, 2.0]]) == np.inf


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="as many training series, not 1"):
        mase(np.zeros((2, 1)), np.zeros((2, 1)), [[1.0, 2.0]])
    with pytest.raises(ConfigError, match="at least 1 step"):
        mase([[0.0]], [[1.0]], [[1.0, 2.0]], season=0)
    with pytest.raises(ConfigError, match="do not fit"):
        mase(np.zeros((1, 1, 3)), [[1.0]], [[1.0, 2.0]])
