"""A figure by prefix length: how good a model is when it has read nothing, one symbol, two, and so on.

    mean_b = sum_i s_ib / sum_i n_ib        s_ib: what the predictions of sequence i in bin b add up to, n_ib of them

Far into a sequence there are few left, so lengths share a bin there. A length below ``ALONE`` has a bin of its own as
long as ``ENOUGH`` sequences have a prediction in it. Any other bin ends half as far again as it begins, or further
where it would hold fewer sequences than that; what is left behind the last one joins it. So no bin holds fewer than
``ENOUGH`` sequences (half of them all, where there are fewer than twice as many). The bins follow from the lengths
alone and are the same for all models; the counts' weighted mean over the bins is the mean over everything.

Intervals draw whole sequences, as ``bootstrap`` does; beyond ``UNITS`` sequences they are pooled at random first.
Shapes: N sequences, L predictions of all, B bins, U units that are drawn, R replicates.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; Holm, "A simple sequentially
rejective multiple test procedure", 1979, for differences in many bins at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation._holm import holm, odds
from seqloom.evaluation._interval import Interval
from seqloom.evaluation._resample import means, unit_of
from seqloom.evaluation.bootstrap import bootstrap

ALONE, ENOUGH = 20, 20
UNITS = 500
"""The spread of a sum over so many units is the same within 6 per cent, and a saved figure stays small."""
BLOCK = 1 << 20
"""Predictions that are sorted at a time."""


@dataclass(frozen=True, eq=False)
class ByPrefixLength:
    """Sums of one figure by bin; ``mean_B`` and ``intervals`` are what is read off them."""

    first_B: np.ndarray
    """The shortest prefix of each bin."""
    last_B: np.ndarray
    """The longest one."""
    sequences_B: np.ndarray
    """Sequences with a prediction there."""
    sum_UB: np.ndarray
    count_UB: np.ndarray
    """Predictions of each unit in each bin."""

    @classmethod
    def of(cls, figures: Ragged, prefix: Any = None) -> Self:
        """Sort the predictions into bins.

        Args:
            figures: Bits, hits or Brier score of every prediction, by sequence; NaN = not known, left out.
            prefix: How many symbols each prediction had read (L,), rising in every sequence; None = 0, 1, 2, ...
        """
        if figures.values.ndim != 1 or not figures.total:
            raise ConfigError(f"figures of the shape {figures.flat.shape}: give one number a prediction, and some")
        prefix_L = _prefixes(figures, prefix)
        edges = _edges(prefix_L, figures)
        units, bins = min(len(figures), UNITS), len(edges) - 1
        sequences_B, last = np.zeros(bins, np.int64), -1
        sum_K, count_K = np.zeros(units * bins), np.zeros(units * bins, np.int64)
        unit_N = unit_of(len(figures), UNITS, 0)
        for begin in range(0, figures.total, BLOCK):
            value_L, sequence_L = _block(figures, begin)
            known_L = ~np.isnan(value_L)
            own_L = sequence_L[known_L]
            bin_L = np.searchsorted(edges, prefix_L[begin : begin + BLOCK][known_L], "right") - 1
            pair_L = own_L * bins + bin_L
            sequences_B += np.bincount(bin_L[np.diff(pair_L, prepend=last) != 0], minlength=bins)
            last = pair_L[-1] if len(pair_L) else last
            cell_L = unit_N[own_L] * bins + bin_L
            sum_K += np.bincount(cell_L, value_L[known_L], len(sum_K))
            count_K += np.bincount(cell_L, minlength=len(count_K))
        return cls(
            first_B=edges[:-1],
            last_B=edges[1:] - 1,
            sequences_B=sequences_B,
            sum_UB=sum_K.reshape(units, bins),
            count_UB=count_K.reshape(units, bins),
        )

    @classmethod
    def average(cls, seeds: Sequence[Self]) -> Self:
        """The mean over several trainings of one model, judged on the same predictions."""
        if not seeds:
            raise ConfigError("there is no training to average over")
        for own in seeds[1:]:
            _check_same(seeds[0], own)
        return replace(seeds[0], sum_UB=np.mean([own.sum_UB for own in seeds], 0))

    @property
    def symbols_B(self) -> np.ndarray:
        """Predictions in each bin."""
        return self.count_UB.sum(0)

    @property
    def mean_B(self) -> np.ndarray:
        """Of each bin; NaN where nothing is known."""
        count_B = self.symbols_B
        return np.where(count_B > 0, self.sum_UB.sum(0) / np.maximum(count_B, 1), np.nan)

    def intervals(self, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> list[Interval]:
        """Mean of each bin, and where it would lie with other sequences; NaN where one is all there is.

        Args:
            level: Share of the replicates inside each interval.
            draws: Replicates.
            seed: The same seed gives the same intervals.
        """
        nothing = Interval(float("nan"), float("nan"), float("nan"))
        return [
            bootstrap(sum_U, count_U, level=level, draws=draws, seed=seed) if count_U.any() else nothing
            for sum_U, count_U in zip(self.sum_UB.T, self.count_UB.T, strict=True)
        ]

    def minus(self, other: Self) -> Self:
        """The difference from another model on the same predictions, paired by sequence."""
        _check_same(self, other)
        return replace(self, sum_UB=self.sum_UB - other.sum_UB)

    def apart(self, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> np.ndarray:
        """True for the bins whose difference from 0 is more than noise (B,), corrected for looking at all of them.

        Args:
            level: 1 - this is the rate at which any bin is called different where none is.
            draws: Replicates.
            seed: The same seed gives the same answer.
        """
        chance = []
        for sum_U, count_U in zip(self.sum_UB.T, self.count_UB.T, strict=True):
            units_U2 = np.stack([sum_U, count_U], 1)[count_U > 0]
            sound = len(units_U2) > 1 and bool(np.isfinite(sum_U).all())
            chance.append(odds(means(units_U2, draws, seed)[:, 0]) if sound else 1.0)
        return np.array(holm(chance)) <= 1 - level


def _check_same(first: ByPrefixLength, second: ByPrefixLength) -> None:
    same = np.array_equal(first.first_B, second.first_B) and np.array_equal(first.count_UB, second.count_UB)
    if not same:
        raise ConfigError("models are compared by prefix length on the same predictions, and these are others")


def _block(figures: Ragged, begin: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``BLOCK`` figures from one on, and the sequence that each belongs to."""
    value_L = np.asarray(figures.flat[begin : begin + BLOCK], np.float64)
    ends_N = figures.offsets[1:] - figures.offsets[0]
    return value_L, np.searchsorted(ends_N, np.arange(begin, begin + len(value_L)), "right")


def _prefixes(figures: Ragged, given: Any) -> np.ndarray:
    begin_N = figures.offsets[:-1] - figures.offsets[0]
    if given is None:
        return np.arange(figures.total) - np.repeat(begin_N, figures.lengths)
    prefix_L = np.asarray(given)
    if prefix_L.shape != (figures.total,) or prefix_L.dtype.kind not in "iu" or (prefix_L < 0).any():
        raise ConfigError(f"prefix lengths of the shape {prefix_L.shape} must be one whole number a prediction")
    falls_L = np.diff(prefix_L, prepend=0) < 0
    falls_L[begin_N[figures.lengths > 0]] = False
    if falls_L.any():
        raise ConfigError("prefix lengths must not fall inside a sequence")
    return prefix_L.astype(np.int64)


def _edges(prefix_L: np.ndarray, figures: Ragged) -> np.ndarray:
    """Where each bin begins, and the end of the last (B + 1,); see the module."""
    held_N = figures.lengths > 0
    offset_N = figures.offsets - figures.offsets[0]
    low_N, high_N = np.sort(prefix_L[offset_N[:-1][held_N]]), np.sort(prefix_L[offset_N[1:][held_N] - 1])
    enough, end = min(ENOUGH, -(-len(low_N) // 2)), int(high_N[-1]) + 1
    edges = [int(low_N[0])]
    while edges[-1] < end:
        first = edges[-1]
        gone = int(np.searchsorted(high_N, first))
        if gone + enough > len(low_N):
            break
        least = int(low_N[gone + enough - 1]) + 1  # up to here the bin holds enough sequences
        wide = first + 1 if first < ALONE and least <= first + 1 else first + max(first // 2, 1)
        edges.append(min(max(wide, least), end))
    return np.array([*edges[:-1], end])
