"""Percentile intervals of a mean over tokens, by drawing whole sequences with replacement.

    mean = sum_i s_i / sum_i n_i        s_i: what sequence i adds up to, n_i: how many predictions it has

Where there are few sequences the replicates are spread as Student's t is (see ``_resample``).

Shapes: N sequences, R replicates.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
"""

from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._interval import Interval
from seqloom.evaluation._resample import means, pooled


def bootstrap(sums: Any, counts: Any = None, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean and where it would lie with other sequences of the same kind.

    Args:
        sums: What each sequence adds up to (N,): bits, hits, Brier scores.
        counts: Predictions of each sequence (N,); None = 1 each.
        level: Share of the replicates inside the interval.
        draws: Replicates.
        seed: The same seed gives the same interval.

    Returns:
        Mean, low and high end. One sequence alone says nothing about others: its ends are NaN. Cut a stream into
        windows and give one sum a window.
    """
    sums_N = np.asarray(sums, np.float64)
    counts_N = np.ones_like(sums_N) if counts is None else np.asarray(counts, np.float64)
    if sums_N.ndim != 1 or sums_N.shape != counts_N.shape:
        raise ConfigError(f"sums of the shape {sums_N.shape} and counts of the shape {counts_N.shape} do not fit")
    if not 0 < level < 1 or draws < 1:
        raise ConfigError(f"level {level} must lie between 0 and 1, and draws {draws} be at least 1")
    if (counts_N < 0).any() or not counts_N.sum() > 0:
        raise ConfigError("counts must not be negative, and at least one prediction is needed")
    keep_N = counts_N > 0
    units_U2 = pooled(np.stack([sums_N, counts_N], 1)[keep_N], seed)
    mean = float(sums_N[keep_N].sum() / counts_N.sum())
    if len(units_U2) < 2 or not np.isfinite(sums_N).all():
        return Interval(mean, float("nan"), float("nan"))
    low, high = np.quantile(means(units_U2, draws, seed)[:, 0], [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))
