"""Brier score over several outcomes: the squared distance between the distribution and what came. Lower is better.

    (1/N) sum_n sum_k (p_nk - 1[k = target_n])^2        from 0 to 2

A proper score that, unlike bits, stays finite where a probability is 0. N counts prefixes, not sequences.
Shapes: N predictions, K outcomes.
Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._scores import checked

SLACK = 1e-4  # float32 sums of many probabilities


@overload
def brier(log_probs: Any, targets: Any) -> float: ...
@overload
def brier(log_probs: Any, targets: Any, *, each: Literal[True]) -> np.ndarray: ...
def brier(log_probs: Any, targets: Any, *, each: bool = False) -> float | np.ndarray:
    """Mean score; with ``each``, the score of every prediction (N,).

    Args:
        log_probs: Natural log-probabilities (N, K), each row of mass 1. Logits need a log-softmax first.
        targets: Which outcome came (N,).
        each: False for the mean.
    """
    log_NK, targets_N = checked(log_probs, targets)
    p_NK = np.exp(log_NK)
    mass_N = p_NK.sum(1)
    if (np.abs(mass_N - 1) > SLACK).any():
        row = int(np.abs(mass_N - 1).argmax())
        raise ConfigError(f"row {row} has mass {mass_N[row]:.6g}, not 1: take the log-softmax of logits first")
    own_N = np.take_along_axis(p_NK, targets_N[:, None], 1)[:, 0]
    score_N = (p_NK**2).sum(1) - 2 * own_N + 1
    return score_N if each else float(score_N.mean())
