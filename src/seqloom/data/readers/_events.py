"""From a frame with known columns to Sequences: events grouped by case and sorted by time, or one sequence a row.

No loop over rows: cases are coded in the order of their first event, one stable sort groups them.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seqloom.core.errors import DataError
from seqloom.data import _build
from seqloom.data.columns import FLAGS, ROLES, Columns, Guess
from seqloom.data.readers import _series, _times
from seqloom.data.readers._guess import columns_of
from seqloom.data.readers._order import order_of
from seqloom.data.sequences import CHANNEL, Sequences


@dataclass(frozen=True)
class Rows:
    """A frame and where its rows stand in the source."""

    frame: pl.DataFrame
    source: str
    first: int

    def strings(self, name: str, role: str, joint: str = "/") -> pl.Series:
        """A column (or several, joined) as strings without a gap."""
        named = columns_of(name, self.frame)
        for part in named:
            if self.frame[part].dtype.is_nested():
                mend = f"Choose another column with {FLAGS[role]}."
                raise self.error(f"the column {part!r} holds lists", 0, mend, self.frame[part].to_list()[0])
        parts = [self.frame[part].cast(pl.String) for part in named]
        for part in parts:
            if part.null_count():
                mend = f"Fill it, delete the row, or choose another column with {FLAGS[role]}."
                raise self.error(f"the column {part.name!r} is empty", int(part.is_null().arg_max() or 0), mend)
        return parts[0] if len(parts) == 1 else pl.select(pl.concat_str(parts, separator=joint)).to_series()

    def error(self, problem: str, at: int, mend: str, value: object = None) -> DataError:
        """An error at one row of the frame."""
        return DataError(problem, file=self.source, row=self.first + at, value=value, mend=mend)


def sequences_of(frame: pl.DataFrame, guess: Guess, source: str, first_row: int) -> Sequences:
    """Build what the guess says."""
    rows = Rows(frame, source, first_row)
    grouped = guess.columns.case or guess.columns.value
    table = _of_events(rows, guess.columns) if grouped else _of_rows(rows, guess.columns)
    column = table["sequence"].chunk(0)
    alphabet = _build.alphabet_of(column, guess.kind)
    names = columns_of(guess.columns.value, frame)
    return Sequences(table, guess.kind, source=source, alphabet=alphabet, notes=guess.notes, value_names=names)


def _of_events(rows: Rows, columns: Columns) -> pa.Table:
    used = {name for role in ROLES for name in columns_of(getattr(columns, role), rows.frame)}
    with ThreadPoolExecutor() as pool:  # Arrow, polars and numpy's sort let each other run
        waiting = pool.submit(_coded, rows.strings(columns.case, "case") if columns.case else _series.one(rows))
        timed = pool.submit(_times.parse, rows.frame[columns.time], rows.source, rows.first) if columns.time else None
        if columns.value:
            named = pool.submit(_series.values_of, rows, columns)
        else:
            named = pool.submit(_coded, rows.strings(columns.event or "", "event", "+"))
        others = {name: pool.submit(_channel, rows.frame[name]) for name in rows.frame.columns if name not in used}
        cases, times = waiting.result(), timed.result() if timed else None
        codes = cases.indices.to_numpy()
        order = order_of(codes, times)
        taken = None if order is None else pa.array(order)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(cases.dictionary)))])
        first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))  # codes rise at a case's first row

        def grouped(values: pa.Array) -> pa.Array:
            return _build.listed(values if taken is None else values.take(taken), offsets)

        extra: dict[str, Any] = {"time": None if times is None else grouped(pa.array(times))}
        for role in ("label", "group"):
            if name := getattr(columns, role):
                extra[role] = _constant(rows, role, name, codes, first)
        extra |= {CHANNEL + name: grouped(values.result()) for name, values in others.items()}
        events = grouped(named.result())
    return _build.table(events, ids=_plain(cases.dictionary), row=rows.first + first, columns=extra)


def _constant(rows: Rows, role: str, name: str, codes: np.ndarray, first: np.ndarray) -> pa.Array:
    """A value that all events of a case share."""
    coded = _coded(rows.strings(name, role))
    value = coded.indices.to_numpy()
    expected = value[first][codes]
    if (value != expected).any():
        at = int(np.argmax(value != expected))
        was, now = (coded.dictionary[int(code)].as_py() for code in (expected[at], value[at]))
        mend = f"Give every event of a case the same value, or choose another column with {FLAGS[role]}."
        raise rows.error(f"the {role} changes within a case, before it was {was!r}", at, mend, now)
    return _plain(coded.dictionary.take(pa.array(value[first])))


def _channel(series: pl.Series) -> pa.Array:
    """Numbers as float64 (a gap is NaN), times as numbers of microseconds, anything else as coded strings."""
    if is_number(series):
        return pa.array(plain_numbers(series))
    text = series if series.dtype == pl.String else as_text(series)
    numbers = numbers_in(text)
    return _coded(text.fill_null("")) if numbers is None else pa.array(numbers)


def is_number(series: pl.Series) -> bool:
    """True for columns that hold numbers, truth values or times by their type."""
    return series.dtype.is_numeric() or series.dtype == pl.Boolean or series.dtype.is_temporal()


def plain_numbers(series: pl.Series) -> np.ndarray:
    """Such a column as float64; a gap is NaN, a time a number of microseconds."""
    numbers = series.cast(pl.Int64) if series.dtype.is_temporal() else series
    return numbers.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def numbers_in(text: pl.Series) -> np.ndarray | None:
    """Strings as float64, a gap as NaN; None where one is no number."""
    for part in (text.head(200), text):  # most columns that hold no numbers are known by their first values
        numbers = part.cast(pl.Float64, strict=False)
        if numbers.null_count() > part.null_count():
            return None
    return numbers.fill_null(float("nan")).to_numpy()


def as_text(series: pl.Series) -> pl.Series:
    """Anything as strings."""
    return pl.Series(series.name, [None if item is None else str(item) for item in series.to_list()], pl.String)


def _of_rows(rows: Rows, columns: Columns) -> pa.Table:
    extra = {role: _plain_column(rows, role, getattr(columns, role)) for role in ("label", "group")}
    name = columns.event or columns.text or ""
    if columns.event:
        series = rows.frame[name]
        if not isinstance(series.dtype, pl.List):
            words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(large(rows.strings(name, "event"))))
            series = pl.Series(words)
        if series.null_count() or series.explode(empty_as_null=False).null_count():
            holes = series.is_null() | series.list.eval(pl.element().is_null()).list.any()
            raise rows.error(f"the column {name!r} has a gap", int(holes.arg_max() or 0), "Fill it or delete the row.")
        offsets = np.concatenate([[0], np.cumsum(series.list.len().to_numpy(), dtype=np.int64)])
        sequence = _build.listed(_coded(series.explode(empty_as_null=False).cast(pl.String)), offsets)
    else:
        sequence = large(rows.strings(name, "text"))
    count = len(sequence)
    if columns.time:
        times = _times.parse(rows.frame[columns.time], rows.source, rows.first)
        extra["time"] = _build.listed(pa.array(times), np.arange(count + 1))
    ids = _plain_column(rows, "id", columns.id)
    return _build.table(sequence, ids=ids, row=rows.first + np.arange(count), columns=extra)


def _plain_column(rows: Rows, role: str, name: str | None) -> pa.Array | None:
    return None if name is None else pc.cast(large(rows.strings(name, role)), pa.string())


def large(series: pl.Series) -> pa.Array:
    """Strings as Arrow has them, without a limit on their bytes."""
    array = series.to_arrow(compat_level=pl.CompatLevel.oldest())
    return pc.cast(array, pa.large_string())


def _coded(series: pl.Series) -> pa.DictionaryArray:
    """Strings as int32 codes in the order of their first appearance."""
    coded = large(series).dictionary_encode()
    return pa.DictionaryArray.from_arrays(coded.indices, _plain(coded.dictionary))


def _plain(strings: pa.Array) -> pa.Array:
    return pc.cast(strings, pa.string())
