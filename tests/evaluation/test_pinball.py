import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.pinball import pinball

LEVELS = [0.1, 0.5, 0.9]


@pytest.mark.parity
def test_agrees_with_sklearn():
    from sklearn.metrics import mean_pinball_loss

    rng = np.random.default_rng(0)
    targets_NH, quantiles_NHQ = rng.normal(size=(7, 5)), rng.normal(size=(7, 5, 3))
    want = [
        mean_pinball_loss(targets_NH.ravel(), quantiles_NHQ[..., q].ravel(), alpha=tau) for q, tau in enumerate(LEVELS)
    ]
    assert pinball(quantiles_NHQ, targets_NH, LEVELS) == pytest.approx(np.mean(want), rel=1e-12)
    each_N = pinball(quantiles_NHQ, targets_NH, LEVELS, each=True)
    assert each_N.shape == (7,)
    assert each_N.mean() == pytest.approx(np.mean(want), rel=1e-12)


def test_no_forecast_beats_the_quantiles_of_the_source():
    draws = np.random.default_rng(1).gumbel(size=(1, 4001))
    true_Q = np.quantile(draws, LEVELS)
    for shift in (-0.2, 0.2):
        worse, best = (pinball(np.tile(q, (1, 4001, 1)), draws, LEVELS) for q in (true_Q + shift, true_Q))
        assert worse > best


def test_the_middle_is_half_the_absolute_error_and_gaps_do_not_count():
    assert pinball([[[1.0], [np.nan]]], [[4.0, np.nan]], [0.5]) == 1.5
    assert np.isnan(pinball([[[1.0]], [[1.0]]], [[4.0], [np.nan]], [0.5], each=True)).tolist() == [False, True]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="one level each"):
        pinball(np.zeros((2, 3, 2)), np.zeros((2, 3)), LEVELS)
    with pytest.raises(ConfigError, match="between 0 and 1, not 0 to 1"):
        pinball(np.zeros((2, 3, 2)), np.zeros((2, 3)), [0, 1])
    with pytest.raises(ConfigError, match="series 0 are not a number at step 2"):
        pinball([[[1.0], [np.nan]]], [[4.0, 1.0]], [0.5])
