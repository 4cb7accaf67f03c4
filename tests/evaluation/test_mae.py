import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.mae import mae


@pytest.mark.parity
def test_agrees_with_sklearn():
    from sklearn.metrics import mean_absolute_error

    rng = np.random.default_rng(0)
    forecasts, targets = rng.normal(size=(2, 7, 5))
    assert mae(forecasts, targets) == pytest.approx(mean_absolute_error(targets.ravel(), forecasts.ravel()), rel=1e-12)
    want_N = mean_absolute_error(targets.T, forecasts.T, multioutput="raw_values")
    np.testing.assert_allclose(mae(forecasts, targets, each=True), want_N, rtol=1e-12)


def test_no_constant_beats_the_median():
    draws = np.random.default_rng(1).exponential(size=(1, 1001))
    best = mae(np.full_like(draws, np.median(draws)), draws)
    assert all(mae(np.full_like(draws, np.median(draws) + shift), draws) > best for shift in (-0.1, 0.1))


def test_what_did_not_come_does_not_count():
    assert mae([[1.0, 9.0]], [[4.0, np.nan]]) == 3.0
    assert np.isnan(mae([[1.0], [1.0]], [[4.0], [np.nan]], each=True)).tolist() == [False, True]
    with pytest.raises(ConfigError, match="do not fit"):
        mae([[1.0]], [[1.0, 2.0]])
