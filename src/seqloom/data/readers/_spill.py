"""Columns of events larger than memory: they wait in files without a name, and are grouped by case there.

    pass 1    every row goes to the bucket of its case; a bucket is a run of consecutive cases of about ROWS events
    pass 2    every bucket is sorted in memory, by case and time, stably, and written back to its place

A file without a name needs no tidying up: the system frees it when the last user ends, however that happens. The files
lie in the folder of temporary files (TMPDIR). Cost: O(rows) reads and writes in runs, memory for one bucket.
"""

import tempfile
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from seqloom.data._mapped import view
from seqloom.data.readers._order import order_of

ROWS = 1 << 20
SMALL = 1 << 16  # bytes that stay in memory
FILES = 100  # open at a time: a table may have thousands of columns, a process has few files; the rest is in memory


class Pile:
    """One column of numbers: appended to, read and written in ranges, mapped at last."""

    _open: ClassVar[int] = 0

    def __init__(self, dtype: Any) -> None:
        """An empty column."""
        self.dtype, self.length = np.dtype(dtype), 0
        self._file: Any = None
        self._held: list[np.ndarray] = []

    def __len__(self) -> int:
        return self.length

    def __del__(self) -> None:
        """Let go of the file; what is mapped of it stays."""
        self._close()

    def append(self, values: np.ndarray) -> None:
        """Put numbers behind those that are there."""
        values = np.ascontiguousarray(values, self.dtype)
        self.length += len(values)
        if self._file is not None:
            self._file.write(values.view(np.uint8))
            return
        self._held.append(values)
        if self.length * self.dtype.itemsize > SMALL and Pile._open < FILES:
            self._file = self._nameless()
            for part in self._held:
                self._file.write(part.view(np.uint8))
            self._held = []

    def read(self, start: int, stop: int) -> np.ndarray:
        """A copy of a range."""
        if self._file is None:
            return self._memory()[start:stop].copy()
        out = np.empty(stop - start, self.dtype)
        self._file.seek(start * self.dtype.itemsize)
        got = self._file.readinto(out.view(np.uint8))
        if got != out.nbytes:
            raise OSError(f"a temporary file gave {got} of {out.nbytes} bytes")
        return out

    def write(self, start: int, values: np.ndarray) -> None:
        """Write a range that ``append`` or ``grown`` made."""
        if self._file is None:
            self._memory()[start : start + len(values)] = values
            return
        self._file.seek(start * self.dtype.itemsize)
        self._file.write(np.ascontiguousarray(values, self.dtype).view(np.uint8))

    def grown(self) -> "Pile":
        """Another column of the same length, to be written in any order."""
        made = Pile(self.dtype)
        made.length = self.length
        if self._file is None or Pile._open >= FILES:
            made._held = [np.zeros(self.length, self.dtype)]
        else:
            made._file = self._nameless()
            made._file.truncate(self.length * self.dtype.itemsize)
        return made

    def array(self) -> np.ndarray:
        """All numbers, mapped: nothing is in memory before it is looked at, and nothing more can be written."""
        if self._file is None:
            return self._memory()
        self._held = [np.frombuffer(view(self._file), self.dtype)]
        self._close()  # the mapping keeps what it shows
        return self._held[0]

    def arrow(self, kind: pa.DataType) -> pa.Array:
        """All numbers as an Arrow column, without a copy."""
        return pa.Array.from_buffers(kind, self.length, [None, pa.py_buffer(self.array())])

    def _nameless(self) -> Any:
        Pile._open += 1
        return tempfile.TemporaryFile(prefix="seqloom-")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            Pile._open -= 1

    def _memory(self) -> np.ndarray:
        if len(self._held) != 1:
            self._held = [np.concatenate(self._held) if self._held else np.zeros(0, self.dtype)]
        return self._held[0]


class Strings:
    """Strings that are only ever added to: their bytes, and where each ends."""

    def __init__(self) -> None:
        """None yet."""
        self._bytes, self._ends = Pile(np.uint8), Pile(np.int64)
        self._ends.append(np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        begin, end = self._ends.read(index, index + 2).tolist()
        return self._bytes.read(begin, end).tobytes().decode()

    def append(self, strings: pa.Array) -> None:
        """Add a large_string column."""
        _, offsets, data = strings.buffers()
        at = np.frombuffer(offsets, np.int64, count=strings.offset + len(strings) + 1)[strings.offset :]
        self._ends.append(at[1:] - at[0] + len(self._bytes))
        if data is not None:
            self._bytes.append(np.frombuffer(data, np.uint8)[at[0] : at[-1]])

    def arrow(self) -> pa.Array:
        """All strings, of the type string where 2 GB are enough."""
        count, ends, data = len(self), self._ends.array(), pa.py_buffer(self._bytes.array())
        if ends[-1] >= 1 << 31:
            return pa.Array.from_buffers(pa.large_string(), count, [None, pa.py_buffer(ends), data])
        return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(ends.astype(np.int32)), data])


Edges = tuple[np.ndarray, np.ndarray]


def group(
    cases: Pile, counts: np.ndarray, times: Pile | None, others: list[Pile], *, rows: int = ROWS
) -> tuple[list[Pile], Edges | None]:
    """Group the rows of every case and sort them by time.

    Args:
        cases: Number of each row's case, in the order of their first appearance.
        counts: Rows of each case.
        times: Time of each row, int64 or float64; None keeps the order of the file.
        others: Columns that move with the rows; ``times`` is not among them.
        rows: Rows of a bucket.

    Returns:
        ``others`` in their new order, behind them ``times``; and the first and the last time of each case.
    """
    moved = [*others] if times is None else [*others, times]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    cuts = np.unique(np.searchsorted(offsets, np.arange(rows, offsets[-1], rows)))  # a case lies in one bucket alone
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]))
    if len(edges) > 2:
        cases, *moved = _distribute([cases, *moved], edges, offsets, rows)
    ends: list[Edges] = []
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        begin, end = int(offsets[first]), int(offsets[last])
        clock = None if times is None else moved[-1].read(begin, end)
        order = order_of(cases.read(begin, end) - first, clock)
        if order is not None:
            for pile in moved:
                pile.write(begin, pile.read(begin, end)[order])
        if clock is not None:
            clock = clock if order is None else clock[order]
            at = offsets[first : last + 1] - begin
            ends.append((clock[at[:-1]], clock[at[1:] - 1]))
    if not ends:
        return moved, None
    firsts, lasts = zip(*ends, strict=True)
    return moved, (np.concatenate(firsts), np.concatenate(lasts))


def _distribute(piles: list[Pile], edges: np.ndarray, offsets: np.ndarray, rows: int) -> list[Pile]:
    """Copies of the columns (the cases first) in which every bucket's rows stand together, in the order of the file."""
    made = [pile.grown() for pile in piles]
    cursor = offsets[edges[:-1]]
    bucket_of = np.repeat(
        np.arange(len(edges) - 1, dtype=np.uint16 if len(edges) < 1 << 16 else np.int64), np.diff(edges)
    )
    for start in range(0, len(piles[0]), rows):
        stop = min(start + rows, len(piles[0]))
        buckets = bucket_of[piles[0].read(start, stop)]
        counts = np.bincount(buckets)
        order = None if (buckets[1:] >= buckets[:-1]).all() else np.argsort(buckets, kind="stable")
        for old, new in zip(piles, made, strict=True):
            values, at = old.read(start, stop), 0
            values = values if order is None else values[order]
            for bucket in np.flatnonzero(counts).tolist():
                new.write(int(cursor[bucket]), values[at : at + counts[bucket]])
                at += int(counts[bucket])
        cursor[: len(counts)] += counts
    return made
