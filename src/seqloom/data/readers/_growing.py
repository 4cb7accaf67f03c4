"""Columns of events that grow block by block: coded cases and strings, channels, values that a case shares.

What is found wrong is noted, not raised: the error that counts is the one that the whole table in memory would give,
and a later block may hold one that comes before it. What has to begin anew, since a later block shows that a column
was read in the wrong way, says so by ``again`` and gets another pass.
"""

import threading

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seqloom.core.errors import DataError
from seqloom.data.columns import FLAGS
from seqloom.data.readers import _events
from seqloom.data.readers._guess import columns_of
from seqloom.data.readers._spill import Pile, Strings

NUMBERS, CODES = "numbers", "codes"


class Collision(Exception):
    """Two strings have one hash: begin anew with another seed."""


class Problems:
    """Errors by their rank; of each rank the first."""

    def __init__(self) -> None:
        """None yet."""
        self._found: dict[tuple[int, ...], DataError] = {}
        self._lock = threading.Lock()

    def note(self, rank: tuple[int, ...], error: DataError) -> None:
        """Keep an error unless there is one of its rank."""
        with self._lock:
            self._found.setdefault(rank, error)

    def check(self) -> None:
        """Raise the error of the lowest rank."""
        if self._found:
            raise self._found[min(self._found)]

    def strings(self, rows: _events.Rows, name: str, role: str, rank: int, joint: str = "/") -> pl.Series | None:
        """A column (or several, joined) as strings; None where there is a gap."""
        whole = True
        for number, part in enumerate(columns_of(name, rows.frame)):
            try:
                rows.strings(part, role)
            except DataError as error:
                self.note((rank, 0, number), error)
                whole = False
        return rows.strings(name, role, joint) if whole else None


class Coder:
    """Strings -> codes in the order of their first appearance, by sorted 64-bit hashes: 16 bytes a string in memory."""

    def __init__(self, seed: int = 0) -> None:
        """No string is known yet."""
        self.seed, self.strings = seed, Strings()
        self._keys, self._codes = np.zeros(0, np.uint64), np.zeros(0, np.int32)
        self._checks = np.zeros(0, np.uint32)

    def code(self, series: pl.Series) -> np.ndarray:
        """Codes int32 of a column without a gap. Raises Collision."""
        local = _events.large(series).dictionary_encode()
        return self._global(local.dictionary)[local.indices.to_numpy()]

    def _global(self, strings: pa.Array) -> np.ndarray:
        """Codes of different strings; those that are new get the next ones."""
        series = pl.Series(strings)
        key_K, check_K = hashes(series, self.seed), hashes(series, self.seed + 1).astype(np.uint32)
        sorted_K = np.argsort(key_K)
        ordered_K = key_K[sorted_K]
        at_K = np.searchsorted(self._keys, ordered_K)
        inside_K = np.minimum(at_K, max(len(self._keys) - 1, 0))
        known_K = self._keys[inside_K] == ordered_K if len(self._keys) else np.zeros(len(key_K), bool)
        other = self._checks[inside_K[known_K]] != check_K[sorted_K][known_K]
        if other.any() or (ordered_K[1:] == ordered_K[:-1]).any():
            raise Collision
        code_K = np.empty(len(key_K), np.int32)
        code_K[sorted_K[known_K]] = self._codes[inside_K[known_K]]
        new_K = np.ones(len(key_K), bool)
        new_K[sorted_K[known_K]] = False
        code_K[new_K] = len(self.strings) + np.arange(int(new_K.sum()))
        if new_K.any():
            self.strings.append(strings if new_K.all() else strings.filter(pa.array(new_K)))
            at, added = at_K[~known_K], sorted_K[~known_K]
            self._keys = np.insert(self._keys, at, key_K[added])
            self._codes = np.insert(self._codes, at, code_K[added])
            self._checks = np.insert(self._checks, at, check_K[added])
        return code_K

    def dictionary(self) -> pa.Array:
        """The strings in the order of their codes; the last use."""
        self._keys, self._codes, self._checks = np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.uint32)
        return self.strings.arrow()


def hashes(series: pl.Series, seed: int) -> np.ndarray:
    """64 bits of each string."""
    return series.hash(seed).to_numpy()


class Cases:
    """The cases: a code for each row, and for each case its rows and the first of them."""

    def __init__(self, name: str, problems: Problems, seed: int) -> None:
        """``name`` is the column, or several with commas."""
        self.name, self.problems, self.coder, self.pile = name, problems, Coder(seed), Pile(np.int32)
        self.counts_N, self._first = np.zeros(0, np.int64), Pile(np.int64)
        self.broken = False

    def add(self, rows: _events.Rows) -> np.ndarray | None:
        """Codes of a block's rows; None where one has no case."""
        strings = self.problems.strings(rows, self.name, "case", 0)
        if strings is None or self.broken:
            self.broken = True
            return None
        known = len(self.coder.strings)
        codes = self.coder.code(strings)
        highest = np.maximum.accumulate(codes)
        np.maximum(highest, known - 1, out=highest)
        self._first.append(np.flatnonzero(np.diff(highest, prepend=known - 1)) + rows.first)
        self.pile.append(codes)
        low = int(codes.min(initial=0))
        self.counts_N = np.concatenate([self.counts_N, np.zeros(len(self.coder.strings) - known, np.int64)])
        found = np.bincount(codes - low)
        self.counts_N[low : low + len(found)] += found
        return codes

    def first(self) -> np.ndarray:
        """First row of each case in the source."""
        return self._first.array()


class Events:
    """The symbol of each row."""

    def __init__(self, name: str, problems: Problems, seed: int) -> None:
        """``name`` is the column, or several with commas."""
        self.name, self.problems, self.coder, self.pile = name, problems, Coder(seed), Pile(np.int32)

    def add(self, rows: _events.Rows) -> None:
        """Code a block."""
        strings = self.problems.strings(rows, self.name, "event", 1, "+")
        if strings is not None:
            self.pile.append(self.coder.code(strings))

    def again(self) -> bool:
        """Never: a string is a string."""
        return False


class Constant:
    """A value that all rows of a case share: label or group."""

    def __init__(self, role: str, name: str, problems: Problems, seed: int) -> None:
        """``role`` is label or group."""
        self.role, self.name, self.problems, self.coder = role, name, problems, Coder(seed)
        self.rank = 3 if role == "label" else 4
        self.code_N = np.zeros(0, np.int32)

    def add(self, rows: _events.Rows, cases: np.ndarray) -> None:
        """Keep the values of new cases, compare those of known ones."""
        strings = self.problems.strings(rows, self.name, self.role, self.rank)
        if strings is None:
            return
        codes = self.coder.code(strings)
        missing = int(cases.max(initial=-1)) + 1 - len(self.code_N)
        self.code_N = np.concatenate([self.code_N, np.full(max(missing, 0), -1, np.int32)])
        different, first = np.unique(cases, return_index=True)
        new = self.code_N[different] < 0
        self.code_N[different[new]] = codes[first[new]]
        wrong = self.code_N[cases] != codes
        if wrong.any():
            at = int(np.argmax(wrong))
            was = self.coder.strings[int(self.code_N[cases[at]])]
            mend = f"Give every event of a case the same value, or choose another column with {FLAGS[self.role]}."
            problem = f"the {self.role} changes within a case, before it was {was!r}"
            self.problems.note((self.rank, 1), rows.error(problem, at, mend, strings[at]))

    def arrow(self) -> pa.Array:
        """One string a case."""
        return pc.cast(self.coder.dictionary().take(pa.array(self.code_N)), pa.string())


class Channel:
    """Another column: numbers as long as everything is a number, else coded strings."""

    def __init__(self, name: str, seed: int) -> None:
        """Numbers until the first string that is none."""
        self.name, self.mode, self.seed = name, NUMBERS, seed
        self._begin()

    def _begin(self) -> None:
        self.wrong, self.coder = False, Coder(self.seed)
        self.pile = Pile(np.float64 if self.mode == NUMBERS else np.int32)

    def add(self, rows: _events.Rows) -> None:
        """Read a block; nothing more of a column that has to begin anew."""
        series = rows.frame[self.name]
        if self.wrong:
            return
        if _events.is_number(series):
            self.pile.append(_events.plain_numbers(series))
            return
        text = series if series.dtype == pl.String else _events.as_text(series)
        if self.mode == NUMBERS:
            numbers = _events.numbers_in(text)
            if numbers is not None:
                self.pile.append(numbers)
                return
            self.wrong, self.mode = len(self.pile) > 0, CODES
            if self.wrong:
                return
            self._begin()
        self.pile.append(self.coder.code(text.fill_null("")))

    def again(self) -> bool:
        """True where the column has turned out to hold strings after numbers."""
        if self.wrong:
            self._begin()
            return True
        return False

    def arrow(self, pile: Pile) -> pa.Array:
        """Values of all rows, as ``pile`` has them in order."""
        if self.mode == NUMBERS:
            return pile.arrow(pa.float64())
        return coded(pile, self.coder)


def coded(pile: Pile, coder: Coder) -> pa.DictionaryArray:
    """Codes and the strings that they stand for; not checked, since that would look at every page."""
    return pa.DictionaryArray.from_arrays(pile.arrow(pa.int32()), coder.dictionary(), safe=False)
