import math

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation.bits_per_symbol import bits_per_symbol


def test_tokens_are_pooled_over_sequences():
    scores = Ragged.of([np.log([0.5, 0.5, 0.5]), np.log([0.25])], np.float64)
    assert bits_per_symbol(scores) == pytest.approx((3 * 1 + 2) / 4)
    assert bits_per_symbol(scores[1:]) == pytest.approx(2)


@pytest.mark.parity
def test_agrees_with_sklearn():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    p_NK, targets_N = rng.dirichlet(np.ones(5), 50), rng.integers(0, 5, 50)
    own = np.log(p_NK[np.arange(50), targets_N])
    assert bits_per_symbol(own) * math.log(2) == pytest.approx(log_loss(targets_N, p_NK, labels=range(5)), rel=1e-12)


def test_impossible_symbols_cost_infinitely_much_and_no_symbols_are_refused():
    assert bits_per_symbol(np.array([-1.0, -np.inf])) == math.inf
    with pytest.raises(ConfigError, match="no symbol was predicted"):
        bits_per_symbol(Ragged.of([[]], np.float64))
