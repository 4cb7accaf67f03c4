import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.mae import mae
from seqloom.evaluation.rmse import rmse


@pytest.mark.parity
def test_agrees_with_sklearn():
    from sklearn.metrics import root_mean_squared_error

    rng = np.random.default_rng(0)
    forecasts, targets = rng.normal(size=(2, 7, 5))
    want = root_mean_squared_error(targets.ravel(), forecasts.ravel())
    assert rmse(forecasts, targets) == pytest.approx(want, rel=1e-12)
    want_N = root_mean_squared_error(targets.T, forecasts.T, multioutput="raw_values")
    np.testing.assert_allclose(rmse(forecasts, targets, each=True), want_N, rtol=1e-12)


def test_it_is_the_absolute_error_where_all_errors_are_equal_and_above_it_elsewhere():
    assert rmse([[0.0, 0.0]], [[3.0, -3.0]]) == mae([[0.0, 0.0]], [[3.0, -3.0]]) == 3.0
    assert rmse([[0.0, 0.0]], [[6.0, 0.0]]) > mae([[0.0, 0.0]], [[6.0, 0.0]])


def test_what_did_not_come_does_not_count():
    assert rmse([[1.0, 9.0]], [[4.0, np.nan]]) == 3.0
    with pytest.raises(ConfigError, match="do not fit"):
        rmse([[1.0]], [[1.0, 2.0]])
