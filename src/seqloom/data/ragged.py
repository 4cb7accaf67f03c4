"""Arrays of different lengths in one flat array: the shape that a data set of sequences has in memory.

    ragged[i] = values[offsets[i] : offsets[i + 1]]

Shapes: N sequences, L values in all, C channels.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from seqloom.core.errors import ConfigError


class Ragged:
    """N arrays end to end. ``values`` is (L,), or (L, C) for real channels; it may be mapped from a file."""

    __slots__ = ("offsets", "values")

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        """Keep both without a copy; ``offsets`` is int64 (N + 1,), rises, and stays inside ``values``."""
        offsets = np.asarray(offsets, dtype=np.int64)
        if offsets.ndim != 1 or not len(offsets):
            raise ConfigError("offsets need one more entry than there are sequences")
        if offsets[0] < 0 or offsets[-1] > len(values) or (np.diff(offsets) < 0).any():
            raise ConfigError("offsets must rise and stay inside the values")
        self.values, self.offsets = values, offsets

    @classmethod
    def of(cls, arrays: Iterable[Any], dtype: Any = np.int32) -> Self:
        """Copy arrays (or lists) end to end."""
        parts = [np.asarray(array, dtype=dtype) for array in arrays]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)])
        return cls(np.concatenate(parts) if parts else np.zeros(0, dtype), offsets)

    @classmethod
    def join(cls, parts: Sequence["Ragged"]) -> Self:
        """The sequences of several raggeds, one after another."""
        if len(parts) == 1:
            return cls(parts[0].values, parts[0].offsets)
        values = [part.flat for part in parts]
        starts = np.cumsum([0, *map(len, values)])
        offsets = [part.offsets[1:] - part.offsets[0] + start for part, start in zip(parts, starts, strict=False)]
        return cls(np.concatenate(values) if values else np.zeros(0, np.int32), np.concatenate([[0], *offsets]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int | slice) -> Any:
        """A view of one sequence, or a ragged view of neighbours (a slice with step 1)."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self.select(np.arange(len(self))[index])
            return Ragged(self.values, self.offsets[start : max(start, stop) + 1])
        at = range(len(self))[index]
        return self.values[self.offsets[at] : self.offsets[at + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield self.values[start:stop]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ragged):
            return NotImplemented
        return np.array_equal(self.lengths, other.lengths) and np.array_equal(self.flat, other.flat)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ragged({len(self)} sequences, {self.total} values, {self.values.dtype})"

    @property
    def lengths(self) -> np.ndarray:
        """Values of each sequence, int64 (N,)."""
        return np.diff(self.offsets)

    @property
    def total(self) -> int:
        """Values in all sequences together."""
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def flat(self) -> np.ndarray:
        """The values of all sequences end to end, without what lies before the first or behind the last."""
        return self.values[self.offsets[0] : self.offsets[-1]]

    def select(self, indices: Any) -> "Ragged":
        """Copies of the sequences at ``indices``, in that order; a number may come twice."""
        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        starts, lengths = self.offsets[:-1][indices], self.lengths[indices]
        return Ragged(self.values[spans(starts, lengths)], np.concatenate([[0], np.cumsum(lengths)]))


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions start, start + 1, ... of every span, end to end."""
    total = int(lengths.sum())
    shift = starts - (np.cumsum(lengths) - lengths)
    return np.arange(total, dtype=np.int64) + np.repeat(shift, lengths)
