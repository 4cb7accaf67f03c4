"""Examples for objectives, made on demand from flat arrays; long sequences cut into windows.

    positions of a sequence of n symbols in next-token training: <bos> x_1 .. x_n -> x_1 .. x_n <eos>    (n + 1)
    window j of length L predicts targets j L + 1 .. (j + 1) L, so every target, <eos> included, is predicted once

A window that does not open its sequence starts with its predecessor's last symbol, which is input alone.
Shapes: N examples, C channels.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged


class Examples(Sequence[Example]):
    """A data set ready for batching; ``examples[i].index`` is ``numbers[i]``, which selected examples keep."""

    def __init__(
        self,
        tokens: Ragged | None,
        targets: Any = None,
        *,
        values: Ragged | None = None,
        opens: Any = None,
        closes: Any = None,
        labels: dict[str, Ragged] | None = None,
    ) -> None:
        """Keep views.

        Args:
            tokens: Ids of each example, without bos and eos; None where there are only values.
            targets: One class or number an example.
            values: Real channels of each example, (length, C), aligned with the tokens.
            opens: False where an example continues an earlier one (its first symbol is input alone).
            closes: False where an example goes on after its last symbol.
            labels: Arrays that move with the tokens (``weight`` is a next-token loss weight).
        """
        base = tokens if tokens is not None else values
        if base is None:
            raise ConfigError("examples need tokens or values")
        for name, other in {"values": values, **(labels or {})}.items():
            if other is not None and not np.array_equal(other.lengths, base.lengths):
                raise ConfigError(f"{name} and tokens have different lengths")
        count = len(base)
        self.tokens, self.values, self.extra = tokens, values, dict(labels or {})
        self.targets = None if targets is None else np.asarray(targets)
        if self.targets is not None and len(self.targets) != count:
            raise ConfigError(f"{count} examples have {len(self.targets)} targets; each needs one")
        self.opens = np.ones(count, bool) if opens is None else np.asarray(opens, bool)
        self.closes = np.ones(count, bool) if closes is None else np.asarray(closes, bool)
        self.numbers = np.arange(count)
        self.parent = np.arange(count)
        self._starts, self._lengths = np.zeros(count, np.int64), base.lengths

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        at = range(len(self))[index]
        row, start = self.parent[at], self._starts[at]
        cut = slice(start, start + self._lengths[at])
        return Example(
            index=int(self.numbers[at]),
            tokens=np.zeros(0, np.int32) if self.tokens is None else self.tokens[row][cut],
            values=None if self.values is None else self.values[row][cut],
            labels={name: ragged[row][cut] for name, ragged in self.extra.items()},
            target=self._target(row),
            opens=bool(self.opens[at]),
            closes=bool(self.closes[at]),
        )

    def _target(self, row: int) -> Any:
        if self.targets is None:
            return None
        return self.targets[row].item() if self.targets.ndim == 1 else self.targets[row]

    @property
    def lengths(self) -> np.ndarray:
        """Columns that each example takes in next-token training, at most what any objective takes."""
        return self._lengths - ~self.opens + self.closes

    @property
    def symbols(self) -> int:
        """Symbols in all, each counted once however the sequences are cut."""
        return int((self._lengths - ~self.opens).sum())

    def select(self, indices: Any) -> "Examples":
        """The examples at ``indices``; they keep their index, so that their random numbers stay theirs."""
        indices = np.asarray(indices)
        indices = indices if indices.dtype == bool else indices.astype(np.int64)  # an empty list is of floats
        chosen = object.__new__(Examples)
        chosen.tokens, chosen.values, chosen.extra, chosen.targets = self.tokens, self.values, self.extra, self.targets
        for name in ("opens", "closes", "numbers", "parent", "_starts", "_lengths"):
            setattr(chosen, name, getattr(self, name)[indices])
        return chosen

    def whole(self) -> "Examples":
        """These examples over arrays of their own: ``tokens[i]`` and ``values[i]`` belong to example i."""
        base = self.tokens if self.tokens is not None else self.values
        in_order = base is not None and np.array_equal(self.parent, np.arange(len(base))) and not self._starts.any()
        if in_order and np.array_equal(self._lengths, base.lengths):  # type: ignore[union-attr]
            return self
        rows = list(self)
        values = None
        if self.values is not None:
            parts = [row.values for row in rows if row.values is not None]
            flat = np.concatenate([self.values.values[:0], *parts])
            values = Ragged(flat, np.concatenate([[0], np.cumsum(self._lengths)]))
        return Examples(
            None if self.tokens is None else Ragged.of([row.tokens for row in rows]),
            None if self.targets is None else self.targets[self.parent],
            values=values,
            opens=self.opens,
            closes=self.closes,
        )

    def windows(self, length: int) -> "Examples":
        """Cut every example into windows of at most ``length`` columns; shorter ones stay as they are.

        ``parent`` tells which sequence each window comes from; ``numbers`` counts the windows.
        """
        if length < 1:
            raise ConfigError(f"a window needs at least one column, not {length}")
        count_N = np.maximum(-(-self.lengths // length), 1)
        from_W = np.repeat(np.arange(len(self)), count_N)
        number_W = np.arange(len(from_W)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        skip_W = ~self.opens[from_W] * 1  # a first symbol that is input alone shifts the targets by one
        first_W = np.where(number_W == 0, 0, number_W * length - 1 + skip_W)
        stop_W = np.minimum((number_W + 1) * length + skip_W, self._lengths[from_W])
        last_W = number_W == count_N[from_W] - 1
        cut = self.select(from_W)
        cut._starts = cut._starts + first_W
        cut._lengths = stop_W - first_W
        cut.opens, cut.closes = cut.opens & (number_W == 0), cut.closes & last_W
        cut.numbers = np.arange(len(from_W))
        return cut
