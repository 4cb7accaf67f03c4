"""Times that grow block by block, read in the one way that reads all of them.

numbers      the first SAMPLE times are numbers
iso          they are ISO 8601; a later one that is not sends the column through another pass
formats      every format that reads the first ones is tried on all: one must be left, or two that agree everywhere
"""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from seqloom.core.errors import DataError
from seqloom.data.readers import _events, _times
from seqloom.data.readers._growing import Problems
from seqloom.data.readers._spill import Pile

_NUMBERS, _ISO, _FORMATS = "numbers", "iso", "formats"


class Times:
    """Times of rows: numbers, ISO 8601, or whichever of the known formats reads every one of them."""

    def __init__(self, name: str, problems: Problems) -> None:
        """What the times look like is decided by the first ones, as in a whole table."""
        self.name, self.problems = name, problems
        self.mode: str | None = None
        self._zones: list[str | None] = []
        self._begin()

    def _begin(self) -> None:
        self.wrong, self._held, self._height = False, [], 0
        self.pile, self._ways = Pile(np.int64), {}
        self._apart: dict[tuple[str, str], DataError] = {}

    @property
    def stamped(self) -> bool:
        """True for moments, False for numbers."""
        return self.pile.dtype.kind == "i"

    def add(self, rows: _events.Rows) -> None:
        """Read a block; the first ones wait until there are enough to decide by."""
        series = rows.frame[self.name]
        if self.wrong:
            return
        if series.null_count() or series.dtype.is_numeric() or series.dtype.is_temporal():
            self._plain(rows, series)
            return
        text = series.cast(pl.String)
        if self.mode == _ISO and self._height >= _times.SAMPLE:
            times = _times.iso(text, self._zones[0])  # white space at the ends is rare: looked for where this fails
            if times is not None:
                self.pile.append(times.view(np.int64))
                return
        text = text.str.strip_chars()
        if self._height < _times.SAMPLE:
            self._held.append((rows, text))
            self._height += len(text)
            if self._height < _times.SAMPLE:
                return
            self._decide()
        else:
            self._read(rows, text)

    def _plain(self, rows: _events.Rows, series: pl.Series) -> None:
        try:
            times = _times.parse(series, rows.source, rows.first)
        except DataError as error:
            self.problems.note((2, 0 if series.null_count() else 2), error)
            return
        if times.dtype.kind == "f" and not len(self.pile):
            self.pile = Pile(np.float64)
        self.pile.append(times.view(np.int64) if times.dtype.kind == "M" else times)

    def _decide(self) -> None:
        held, self._held = self._held, []
        text = pl.concat([part for _, part in held])
        sample = text.head(_times.SAMPLE)
        if self.mode is None:
            if not sample.cast(pl.Float64, strict=False).null_count():
                self.mode, self.pile = _NUMBERS, Pile(np.float64)
            else:
                self._zones = [zone for zone in _times.ZONES if _times.iso(sample, zone) is not None]
                self.mode = _ISO if self._zones else _FORMATS
        if self.mode == _FORMATS:
            self._ended = bool(sample.str.ends_with("Z").all())
            sample = self._offset(sample)
            fits = [format for format in _times.formats() if not _times.read_as(sample, format).null_count()]
            self._ways = {format: _Way(format) for format in fits or _times.formats()}
        for rows, part in held:
            self._read(rows, part)

    def _read(self, rows: _events.Rows, text: pl.Series) -> None:
        if self.wrong:
            return
        if self.mode == _NUMBERS:
            self._numbers(rows, text)
        elif self.mode == _ISO:
            times = _times.iso(text, self._zones[0])
            if times is None:
                self.wrong = True
            else:
                self.pile.append(times.view(np.int64))
        else:
            text = self._offset(text)
            for way in self._ways.values():
                way.add(rows, text)
            self._tell_apart(rows, text)

    def _tell_apart(self, rows: _events.Rows, text: pl.Series) -> None:
        """Keep the first value that two ways read differently."""
        alive = [way for way in self._ways.values() if not way.nulls]
        for one, other in combinations(alive, 2):
            pair = one.format, other.format
            at = None if pair in self._apart else _times.apart(one.block, other.block)
            if at is not None:
                ways = [(way.format, way.block[at]) for way in (one, other)]
                self._apart[pair] = _times.two_ways(ways, rows.source, rows.first + at, text[at])
        for way in alive:
            way.block = None  # as large as the block

    def _numbers(self, rows: _events.Rows, text: pl.Series) -> None:
        numbers = text.cast(pl.Float64, strict=False)
        try:
            _times.no_gap(numbers, rows.source, rows.first, rows.frame[self.name])
            self.pile.append(_times.finite(numbers, rows.source, rows.first))
        except DataError as error:
            self.problems.note((2, 1 if numbers.null_count() else 2), error)

    def _offset(self, text: pl.Series) -> pl.Series:
        return text.str.replace("Z$", "+00:00") if self._ended else text

    def again(self) -> bool:
        """True where the way in which the first times are written does not read a later one."""
        if self._held:
            self._decide()
        if self.wrong:
            self._zones.pop(0)
            self.mode = _ISO if self._zones else _FORMATS
            self._begin()
            return True
        if self.mode == _FORMATS:
            self._choose()
        return False

    def _choose(self) -> None:
        """The format that reads every time, or what the whole table would say."""
        ways = list(self._ways.values())
        good = [way for way in ways if not way.nulls]
        if not good:
            self.problems.note((2, 3), min(ways, key=lambda way: way.nulls).problem)
            return
        for other in good[1:]:
            if unclear := self._apart.get((good[0].format, other.format)):
                self.problems.note((2, 3), unclear)
                return
        self.pile = good[0].pile


class _Way:
    """One format: what it reads, and where it fails first."""

    def __init__(self, format: str) -> None:
        self.format, self.nulls, self.pile = format, 0, Pile(np.int64)
        self.block: Any = None
        self.problem: Any = None

    def add(self, rows: _events.Rows, text: pl.Series) -> None:
        """Read a block."""
        times = _times.read_as(text, self.format)
        nulls = times.null_count()
        if nulls and not self.nulls:
            at = int(times.is_null().arg_max() or 0)
            self.problem = rows.error("is no time", at, _times.ASK, text[at])
            self.pile = Pile(np.int64)  # frees its file
        self.nulls += nulls
        self.block = None if self.nulls else times
        if not self.nulls:
            self.pile.append(np.ascontiguousarray(_times.microseconds(times).view(np.int64)))
