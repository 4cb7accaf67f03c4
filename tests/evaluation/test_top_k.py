import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.accuracy import accuracy
from seqloom.evaluation.top_k import top_k


@pytest.mark.parity
@pytest.mark.parametrize("k", [1, 2, 4])
def test_agrees_with_sklearn(k):
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(0)
    scores_NK, targets_N = rng.normal(size=(200, 6)), rng.integers(0, 6, 200)
    assert top_k(scores_NK, targets_N, k) == top_k_accuracy_score(targets_N, scores_NK, k=k, labels=range(6))


def test_of_equal_scores_the_lowest_numbers_come_first():
    scores_NK = np.zeros((4, 4))
    assert top_k(scores_NK, [0, 1, 2, 3], 2, each=True).tolist() == [1, 1, 0, 0]
    assert top_k(scores_NK, [0, 1, 2, 3], 1) == accuracy(scores_NK, [0, 1, 2, 3]) == 0.25
    assert top_k(scores_NK, [0, 1, 2, 3]) == 1


def test_k_below_one_is_refused():
    with pytest.raises(ConfigError, match="k must be at least 1"):
        top_k(np.zeros((1, 2)), [0], 0)
