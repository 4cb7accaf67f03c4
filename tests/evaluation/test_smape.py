import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.smape import smape


def test_is_the_formula_word_for_word():
    rng = np.random.default_rng(0)
    targets_NH, forecasts_NH = rng.normal(size=(2, 9, 4))
    want = [
        [2 * abs(y - f) / (abs(y) + abs(f)) for y, f in zip(*row, strict=True)]
        for row in zip(targets_NH, forecasts_NH, strict=True)
    ]
    assert smape(forecasts_NH, targets_NH) == pytest.approx(np.mean(want), rel=1e-12)
    np.testing.assert_allclose(smape(forecasts_NH, targets_NH, each=True), np.mean(want, 1), rtol=1e-12)


def test_closed_forms():
    assert smape([[150.0]], [[100.0]]) == 0.4  # 40 in the tables of M4
    assert smape([[100.0]], [[150.0]]) == 0.4
    assert smape([[0.0, 0.0]], [[0.0, 5.0]], each=True).tolist() == [1.0]  # right, and as wrong as can be
    assert smape([[-3.0]], [[3.0]]) == 2.0


def test_a_forecast_that_diverged_is_as_wrong_as_can_be_and_gaps_do_not_count():
    assert smape([[np.inf, np.inf]], [[1.0, np.nan]]) == 2.0
    assert np.isnan(smape([[1.0], [1.0]], [[1.0], [np.nan]], each=True)).tolist() == [False, True]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="steps ahead"):
        smape([1.0], [1.0])
    with pytest.raises(ConfigError, match="do not fit"):
        smape(np.zeros((1, 1, 3)), [[1.0]])
    with pytest.raises(ConfigError, match="not a number"):
        smape([[np.nan]], [[1.0]])
