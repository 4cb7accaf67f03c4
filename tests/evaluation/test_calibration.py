import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.calibration import calibration


def made(rng, count, sharper=1.0, outcomes=4):
    """Outcomes drawn from distributions, told as if they were sharper."""
    true_NK = rng.dirichlet(np.ones(outcomes), count)
    targets_N = (rng.random(count)[:, None] > true_NK.cumsum(1)).sum(1).clip(max=outcomes - 1)
    told_NK = true_NK**sharper
    return np.log(told_NK / told_NK.sum(1, keepdims=True)), targets_N


@pytest.mark.parity
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_curve_agrees_with_sklearn(bins):
    from sklearn.calibration import calibration_curve

    log_NK, targets_N = made(np.random.default_rng(0), 500, 1.5)
    got = calibration(log_NK, targets_N, bins=bins)
    hit_N, sure_N = log_NK.argmax(1) == targets_N, np.exp(log_NK.max(1))
    frequency_B, confidence_B = calibration_curve(hit_N, sure_N, n_bins=bins, strategy="quantile")
    np.testing.assert_allclose(got.frequency_B, frequency_B, rtol=1e-12)
    np.testing.assert_allclose(got.confidence_B, confidence_B, rtol=1e-12)
    assert got.count_B.sum() == 500
    want = sum(n * abs(f - c) for n, f, c in zip(got.count_B, frequency_B, confidence_B, strict=True)) / 500
    assert got.error == pytest.approx(want, rel=1e-12)


def test_honest_chances_cost_nothing_and_boasted_ones_their_surplus():
    rng = np.random.default_rng(1)
    honest, boasting = (calibration(*made(rng, 20_000, sharper)) for sharper in (1.0, 3.0))
    assert honest.error < 0.02
    assert boasting.error == pytest.approx((boasting.confidence_B - boasting.frequency_B).mean(), rel=0.02)
    assert boasting.error > 0.15


def test_equal_confidences_share_a_bin():
    got = calibration(np.log([[0.8, 0.2]] * 10), [0] * 6 + [1] * 4)
    assert got.count_B.tolist() == [10]
    assert got.error == pytest.approx(0.2)


def test_logits_and_no_bins_are_refused():
    with pytest.raises(ConfigError, match="row 1 has a probability of 7"):
        calibration([[0.0, -np.inf], [2.0, 0.0]], [0, 0])
    with pytest.raises(ConfigError, match="at least 1"):
        calibration([[0.0]], [0], bins=0)
