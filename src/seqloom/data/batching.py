"""Which examples make which batch: a pure function of (widths, seed, epoch).

    bucketed    examples of like widths share a batch: shuffle, sort inside large pools, cut, shuffle the batches
    packed      several examples share a row of ``window`` columns: first fit, widest first, inside large pools

Every example comes exactly once an epoch. To resume at batch k, skip the first k entries of the same list.
Source: first fit decreasing: Johnson, "Near-optimal bin packing algorithms", 1973.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError
from seqloom.core.rng import generator

_POOL = 64  # batches that are shuffled, then sorted or packed together: enough for like widths, few for memory


@dataclass(frozen=True, kw_only=True)
class Batching(Value):
    """How many examples a step sees. Give ``rows``, or ``tokens`` for batches of even cost."""

    rows: int = 32
    """Rows of a batch where ``tokens`` is 0."""
    tokens: int = 0
    """Most columns of a batch, padding included; a single wider example stands alone. 0 = count rows."""
    window: int = 0
    """Cut longer sequences into windows of this many columns, the capacity of a packed row; 0 = never cut."""
    packed: bool = False
    """Put several examples into one row; needs ``window``."""
    bucketed: bool = True
    """Let examples of like widths share a batch: less padding, the same examples."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no batch."""
        if min(self.rows, self.tokens, self.window) < 0 or not (self.rows or self.tokens):
            raise ConfigError("a batch needs rows or tokens above 0, and no negative size")
        if self.packed and not self.window:
            raise ConfigError("packed rows need a window: the columns of one row")
        if self.packed and self.tokens and self.tokens < self.window:
            raise ConfigError(f"{self.tokens} tokens hold no packed row of {self.window}; lower the window")

    def epoch(self, lengths: Any, seed: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Batches of one epoch as (indices of examples, row numbers in the batch).

        Args:
            lengths: Columns that each example takes (``objective.width``; bos and eos counted), (N,).
            seed: Seed of the run.
            epoch: Number of the epoch: another order each time.
        """
        width_N = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
        rng = generator(seed, "batching", epoch)
        order_N = rng.permutation(len(width_N))
        if self.packed:
            return self._packed(width_N, order_N, rng)
        batches = self._bucketed(width_N, order_N, rng) if self.bucketed else self._cut(width_N, order_N)
        return [(batch, np.arange(len(batch))) for batch in batches]

    def _bucketed(self, width_N: np.ndarray, order_N: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        batches = []
        for pool in self._pools(width_N, order_N):
            widest_first = pool[np.argsort(-width_N[pool], kind="stable")]
            batches += self._cut(width_N, widest_first)
        return [batches[i] for i in rng.permutation(len(batches))]

    def _pools(self, width_N: np.ndarray, order_N: np.ndarray) -> list[np.ndarray]:
        """Consecutive pieces of the order that are worth about ``_POOL`` batches each."""
        if self.packed:
            rows = self.tokens // self.window if self.tokens else self.rows
            worth_N = np.cumsum(width_N[order_N]) / (rows * self.window)
        elif self.tokens:
            worth_N = np.cumsum(width_N[order_N]) / self.tokens
        else:
            worth_N = np.arange(len(order_N)) / self.rows
        borders = np.flatnonzero(np.diff((worth_N / _POOL).astype(np.int64))) + 1
        return np.split(order_N, borders) if len(order_N) else []

    def _cut(self, width_N: np.ndarray, order_N: np.ndarray) -> list[np.ndarray]:
        """Consecutive batches of an order, each within ``tokens`` (or of ``rows``)."""
        if not self.tokens:
            return [order_N[i : i + self.rows] for i in range(0, len(order_N), self.rows)]
        batches, start, width = [], 0, width_N[order_N]
        while start < len(order_N):
            most = max(self.tokens // int(width[start]), 1)
            widest = np.maximum.accumulate(width[start : start + most])
            fits = int((widest * np.arange(1, len(widest) + 1) <= self.tokens).sum())  # the product only rises
            batches.append(order_N[start : start + max(fits, 1)])
            start += max(fits, 1)
        return batches

    def _packed(
        self, width_N: np.ndarray, order_N: np.ndarray, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        if len(width_N) and width_N.max() > self.window:
            at = int(width_N.argmax())
            raise ConfigError(
                f"example {at} takes {width_N[at]} columns, a packed row has {self.window}: cut the examples first "
                f"(Examples.windows({self.window})), or widen the window"
            )
        rows = self.tokens // self.window if self.tokens else self.rows
        filled = []
        for pool in self._pools(width_N, order_N):
            row_of, count = first_fit(width_N[pool], self.window)
            by_row = np.argsort(row_of, kind="stable")
            filled += np.split(pool[by_row], np.flatnonzero(np.diff(row_of[by_row])) + 1) if count else []
        filled = [filled[i] for i in rng.permutation(len(filled))]
        batches = []
        for start in range(0, len(filled), rows):
            group = filled[start : start + rows]
            numbers = np.repeat(np.arange(len(group)), [len(row) for row in group])
            batches.append((np.concatenate(group), numbers))
        return batches


def first_fit(width_N: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Row of each example when the widest go first, each into the first row with room; and the count of rows.

    Examples of one width are placed together: the first row takes as many as fit, then the next row, and so on,
    which is what placing them one by one does. Cost: O(distinct widths x rows).
    """
    order_N = np.argsort(-width_N, kind="stable")
    row_N = np.empty(len(width_N), dtype=np.int64)
    free_R = np.full(len(width_N), capacity, dtype=np.int64)
    opened, start = 0, 0
    values, counts = np.unique(width_N, return_counts=True)
    for width, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        reach = opened + -(-count // (capacity // width))  # rows in use, and the new ones that are needed at most
        room_R = free_R[:reach] // width
        take_R = np.diff(np.minimum(np.cumsum(room_R), count), prepend=0)
        free_R[:reach] -= take_R * width
        row_N[order_N[start : start + count]] = np.repeat(np.arange(reach), take_R)
        opened = max(opened, int(np.flatnonzero(take_R)[-1]) + 1)
        start += count
    return row_N, opened
