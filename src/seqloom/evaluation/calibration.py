"""Expected calibration error and the reliability curve: when a model says 80 per cent, is it right 80 times in 100?

    ECE = sum_b (n_b / N) |frequency_b - confidence_b|        from 0 to 1, lower is better

Confidence is the probability of the likeliest outcome, frequency how often it came. The bins hold equally many
predictions: with equal widths nearly all would lie in one. Equal confidences share a bin.
Chance alone puts up to 0.4 / sqrt(n_b) into each bin on average, so an error below that is none.
Shapes: N predictions, K outcomes, B bins that hold something.
Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015; Guo et
al., "On calibration of modern neural networks", 2017, arXiv:1706.04599, section 2; Nguyen and O'Connor, "Posterior
calibration and exploratory analysis for natural language processing models", 2015, arXiv:1508.05154, for the bins.
"""

from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._reliability import Reliability
from seqloom.evaluation._scores import checked


def calibration(log_probs: Any, targets: Any, *, bins: int = 15) -> Reliability:
    """The calibration error, and the curve that it is the distance of.

    Args:
        log_probs: Natural log-probabilities (N, K). Logits need a log-softmax first.
        targets: Which outcome came (N,).
        bins: Most bins; fewer where confidences are equal.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, not {bins}")
    log_NK, targets_N = checked(log_probs, targets)
    confidence_N = np.exp(log_NK.max(1))
    if confidence_N.max() > 1 + 1e-4:
        row = int(confidence_N.argmax())
        raise ConfigError(f"row {row} has a probability of {confidence_N[row]:.6g}: take the log-softmax of logits")
    hit_N = log_NK.argmax(1) == targets_N
    edges = np.quantile(confidence_N, np.linspace(0, 1, bins + 1))
    bin_N = np.searchsorted(edges[1:-1], confidence_N)
    count_B = np.bincount(bin_N, minlength=bins)
    held_B = count_B > 0
    confidence_B, frequency_B = (
        np.bincount(bin_N, x_N, bins)[held_B] / count_B[held_B] for x_N in (confidence_N, hit_N)
    )
    error = float((count_B[held_B] * np.abs(frequency_B - confidence_B)).sum() / len(targets_N))
    return Reliability(error, confidence_B, frequency_B, count_B[held_B])
