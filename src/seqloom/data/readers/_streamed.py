"""Event logs larger than memory, and tables of one sequence a row, read a block at a time.

The rows of a case may stand anywhere in a file: cases, events, times and channels are coded block by block, wait on
disk (``_spill``), are grouped there, and become Sequences that are mapped from files without a name. What comes out,
and every error, is what the whole table in memory would give. Memory: some blocks and the dictionaries.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from seqloom.core.errors import DataError
from seqloom.data import _build
from seqloom.data._mapped import give_back
from seqloom.data._source import Source
from seqloom.data.columns import ROLES, Columns, Guess
from seqloom.data.readers import _events, _guess, _nested, _spill
from seqloom.data.readers._blocks import Blocks
from seqloom.data.readers._clock import Times
from seqloom.data.readers._growing import Cases, Channel, Collision, Constant, Events, Problems, coded
from seqloom.data.sequences import CHANNEL, Sequences

HEAD = 1000  # rows that the columns are guessed by, as in a whole table
LARGEST = 1 << 23  # bytes that are parsed at a time: larger blocks are no faster, and three of them are held
SMALLEST = 1 << 20  # enough for the head
SEEDS = 4


def sequences_of(source: Source, form: str, columns: Columns, block: int) -> Iterator[Sequences] | None:
    """Batches of Sequences; None for what only a whole table shows: lists of objects, values, times of rows."""
    blocks, size = Blocks(source, form), min(block, LARGEST)
    head = _head(blocks, min(size, SMALLEST))
    flat = None if head is None else _nested.flat(head, columns, source.name)
    if flat is None or flat.at is not None:
        return None
    guess = flat.guess(source.name)
    if guess.columns.case and guess.kind == "symbols":
        return iter([_events_of(blocks, guess, size)])
    return _rows_of(blocks, guess, size) if not (guess.columns.time or guess.kind == "values") else None


def _head(blocks: Blocks, size: int) -> pl.DataFrame | None:
    parts, rows = [], 0
    for _, frame in blocks.frames(size):
        parts.append(frame)
        rows += frame.height
        if rows >= HEAD:
            break
    return pl.concat(parts).head(HEAD) if rows else None


def _rows_of(blocks: Blocks, guess: Guess, size: int) -> Iterator[Sequences]:
    """One row is one sequence: a block is a batch."""
    alphabet = None
    for before, frame in blocks.frames(size):
        part = _events.sequences_of(frame, guess, blocks.source.name, blocks.first_row + before)
        alphabet = alphabet or part.alphabet  # judged by the first ones, as that of a whole table
        yield Sequences(part.table, part.kind, source=part.source, alphabet=alphabet, notes=part.notes)


def _events_of(blocks: Blocks, guess: Guess, size: int) -> Sequences:
    file = blocks.source.name
    for seed in range(0, 2 * SEEDS, 2):
        try:
            log = _Log(blocks, guess, seed)
            log.read(size)
            made = log.sequences(guess)
            give_back()
            return made
        except Collision:
            continue
        except OSError as error:
            mend = "Free space for temporary files, or name a folder that has some: TMPDIR=/folder seqloom ..."
            raise DataError(f"needs room on disk: {error.strerror or error}", file=file, mend=mend) from error
    raise DataError("its names cannot be told apart by a hash", file=file, mend="Report this file.")


class _Log:
    """Columns of one event log while it is read."""

    def __init__(self, blocks: Blocks, guess: Guess, seed: int) -> None:
        self.blocks, self.seed = blocks, seed
        self.columns: Columns = guess.columns
        self.problems = Problems()
        self.cases = Cases(self.columns.case or "", self.problems, seed)
        self.events = Events(self.columns.event or "", self.problems, seed)
        self.times = Times(self.columns.time, self.problems) if self.columns.time else None
        shared = {role: getattr(self.columns, role) for role in ("label", "group")}
        self.shared = {
            role: Constant(role, name, self.problems, seed) for role, name in shared.items() if name is not None
        }
        self.channels: dict[str, Channel] = {}

    def read(self, size: int) -> None:
        """One pass, and another one for each way in which a column was judged too early."""
        pending: list[Any] | None = None
        while pending is None or pending:
            with ThreadPoolExecutor() as pool:
                for before, frame in self.blocks.frames(size):
                    rows = _events.Rows(frame, self.blocks.source.name, self.blocks.first_row + before)
                    if pending is None:
                        self._whole(rows, pool)
                    else:
                        list(pool.map(_adding(rows), pending))
            pending = [column for column in pending or self._growing() if column.again()]
        self.problems.check()

    def _whole(self, rows: _events.Rows, pool: ThreadPoolExecutor) -> None:
        """A block of the first pass."""
        if not self.channels:
            used = {name for role in ROLES for name in _guess.columns_of(getattr(self.columns, role), rows.frame)}
            self.channels = {name: Channel(name, self.seed) for name in rows.frame.columns if name not in used}
        waiting = pool.submit(self.cases.add, rows)
        others = [pool.submit(column.add, rows) for column in self._growing()]
        cases = waiting.result()
        if cases is not None:
            for column in self.shared.values():
                column.add(rows, cases)
        for job in others:
            job.result()

    def _growing(self) -> list[Any]:
        """Columns with a value for every row."""
        return [self.events, *([] if self.times is None else [self.times]), *self.channels.values()]

    def sequences(self, guess: Guess) -> Sequences:
        """Group the rows on disk, and map what came of it."""
        counts_N, times = self.cases.counts_N, None if self.times is None else self.times.pile
        piles = [self.events.pile, *(channel.pile for channel in self.channels.values())]
        (events, *moved), ends = _spill.group(self.cases.pile, counts_N, times, piles)
        offsets = np.concatenate([[0], np.cumsum(counts_N)])
        extra: dict[str, Any] = {}
        if self.times is not None:
            kind = pa.timestamp("us") if self.times.stamped else pa.float64()
            extra["time"] = _build.listed(moved.pop().arrow(kind), offsets)
        extra |= {role: column.arrow() for role, column in self.shared.items()}
        for (name, channel), pile in zip(self.channels.items(), moved, strict=True):
            extra[CHANNEL + name] = _build.listed(channel.arrow(pile), offsets)
        sequence = _build.listed(coded(events, self.events.coder), offsets)
        table = _build.table(sequence, ids=self.cases.coder.dictionary(), row=self.cases.first(), columns=extra)
        made = Sequences(table, guess.kind, source=self.blocks.source.name, alphabet="events", notes=guess.notes)
        if ends is None or self.times is None:
            return made
        first_N, last_N = (times.view("datetime64[us]") if self.times.stamped else times for times in ends)
        return made.with_edges(first_N, last_N)


def _adding(rows: _events.Rows) -> Any:
    return lambda column: column.add(rows)
