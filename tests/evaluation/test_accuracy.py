import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.accuracy import accuracy


@pytest.mark.parity
def test_agrees_with_sklearn_on_scores_with_ties():
    from sklearn.metrics import accuracy_score

    rng = np.random.default_rng(0)
    scores_NK, targets_N = rng.integers(0, 3, (200, 4)), rng.integers(0, 4, 200)
    assert accuracy(scores_NK, targets_N) == accuracy_score(targets_N, scores_NK.argmax(1))
    assert accuracy(scores_NK, targets_N, each=True).mean() == accuracy(scores_NK, targets_N)


def test_impossible_outcomes_are_no_hits():
    scores_NK = np.log([[1.0, 1e-300], [1e-300, 1.0]])
    scores_NK[:, 0] = -np.inf
    assert accuracy(scores_NK, [0, 1], each=True).tolist() == [0, 1]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="one target a row"):
        accuracy(np.zeros((3, 2)), [0, 1])
    with pytest.raises(ConfigError, match="run from 0 to 2 over 2"):
        accuracy(np.zeros((2, 2)), [0, 2])
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        accuracy(np.zeros((0, 2)), [])
    with pytest.raises(ConfigError, match="row 1 of the scores is not a number"):
        accuracy([[0, 1], [np.nan, 1]], [0, 1])
