import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.brier import brier


def test_is_the_formula_word_for_word():
    rng = np.random.default_rng(0)
    p_NK, targets_N = rng.dirichlet(np.ones(5), 40), rng.integers(0, 5, 40)
    wanted = [((p - (np.arange(5) == target)) ** 2).sum() for p, target in zip(p_NK, targets_N, strict=True)]
    np.testing.assert_allclose(brier(np.log(p_NK), targets_N, each=True), wanted, rtol=1e-12)
    assert brier(np.log(p_NK), targets_N) == pytest.approx(np.mean(wanted), rel=1e-12)


@pytest.mark.parity
def test_agrees_with_sklearn():
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(1)
    p_NK, targets_N = rng.dirichlet(np.ones(4), 60), rng.integers(0, 4, 60)
    wanted = brier_score_loss(targets_N, p_NK, labels=range(4), scale_by_half=False)
    assert brier(np.log(p_NK), targets_N) == pytest.approx(wanted, rel=1e-12)


def test_runs_from_nought_to_two_and_takes_zeros():
    with np.errstate(divide="ignore"):
        assert brier(np.log([[1.0, 0.0], [0.0, 1.0]]), [0, 0], each=True).tolist() == [0, 2]


def test_logits_are_refused():
    with pytest.raises(ConfigError, match="row 1 has mass 2"):
        brier([[0.0, -np.inf], [0.0, 0.0]], [0, 0])
