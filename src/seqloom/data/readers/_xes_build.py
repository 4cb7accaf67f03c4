"""From traces as read to Sequences.

Channels are coded strings at first, since a later block may show that they hold more than numbers, or others.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seqloom.core.errors import DataError
from seqloom.data import _build
from seqloom.data.columns import FLAGS, Columns, Guess
from seqloom.data.readers import _times
from seqloom.data.readers._named import parts_of
from seqloom.data.readers._order import order_of
from seqloom.data.readers._xes_log import Column, Traces
from seqloom.data.sequences import CHANNEL, Sequences

_NUMBERS = {"int", "float"}


def part_of(traces: Traces, guess: Guess, source: str, before: int) -> Sequences:
    """Sequences with channels of coded strings, missing where an event has none; ``before`` traces came earlier."""
    columns, count = guess.columns, len(traces.lines)
    offsets = np.append(np.asarray(traces.starts, np.int64), count)
    times = _read_times(traces, columns.time, source) if columns.time else None
    trace = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = None if times is None else order_of(trace, times)
    taken = None if order is None else pa.array(order)

    def grouped(values: pa.Array, *, code: bool = True) -> pa.Array:
        values = values if taken is None else values.take(taken)
        return _build.listed(values.dictionary_encode() if code else values, offsets)

    extra: dict[str, Any] = {role: _of_traces(traces, role, columns, source) for role in ("label", "group")}
    extra["time"] = None if times is None else grouped(pa.array(times), code=False)
    parts = [_whole(traces, key, "event", source) for key in parts_of(columns.event, traces.columns)]
    events = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "+")
    for key, column in _others(traces.columns, columns):
        values = _values(column, count)
        if _is_number(column):
            _check_numbers(traces, key, values, source)
        extra[CHANNEL + key] = grouped(values)
    ids = _of_traces(traces, "id", columns, source)
    names = _names(traces, before) if ids is None else ids
    table = _build.table(grouped(events), ids=names, row=np.asarray(traces.rows, np.int64), columns=extra)
    return Sequences(table, "symbols", source=source, alphabet="events", notes=guess.notes)


def complete(part: Sequences, found: dict[str, Column], columns: Columns) -> Sequences:
    """A part with every channel that the log has: numbers where all blocks have numbers, else strings without a gap."""
    table, lists = part.table, part.table["sequence"].chunk(0)
    offsets, count = lists.offsets.to_numpy(), len(lists.values)
    plain = table.select([name for name in table.column_names if not name.startswith(CHANNEL)])
    for key, column in _others(found, columns):
        if CHANNEL + key in table.column_names:
            coded = table[CHANNEL + key].chunk(0).values
        else:
            coded = pa.DictionaryArray.from_arrays(pa.nulls(count, pa.int32()), pa.array([], pa.string()))
        values = _numbers(coded) if _is_number(column) else _filled(coded)
        plain = plain.append_column(CHANNEL + key, _build.listed(values, offsets))
    return Sequences(plain, "symbols", source=part.source, alphabet="events", notes=part.notes)


def _others(found: dict[str, Column], columns: Columns) -> list[tuple[str, Column]]:
    used = {*parts_of(columns.event, found), columns.time}
    return [(key, column) for key, column in found.items() if key not in used]


def _values(column: Column, count: int) -> pa.Array:
    if isinstance(column.values, pa.Array):
        return column.values
    return pa.array(column.values + [None] * (count - len(column.values)), pa.string())


def _whole(traces: Traces, key: str, role: str, source: str) -> pa.Array:
    """An attribute that every event must have."""
    values = _values(traces.columns.get(key, Column()), len(traces.lines))
    if values.null_count:
        at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        mend = f"Add it, delete the event, or choose another attribute with {FLAGS[role]}."
        raise DataError(f"an event has no {key}", file=source, row=traces.lines[at], mend=mend)
    return values


def _of_traces(traces: Traces, role: str, columns: Columns, source: str) -> pa.Array | None:
    """An attribute that every trace must have."""
    key = getattr(columns, role)
    if key is None:
        return None
    for row, attributes in zip(traces.rows, traces.attributes, strict=True):
        if key not in attributes:
            mend = f"Choose another attribute with {FLAGS[role]}; this trace has {', '.join(attributes) or 'none'}."
            raise DataError(f"a trace has no {key}", file=source, row=row, mend=mend)
    return pa.array([attributes[key] for attributes in traces.attributes], pa.string())


def _names(traces: Traces, before: int) -> pa.Array:
    """Names of the traces, their numbers where they have none."""
    numbered = enumerate(traces.attributes, before + 1)
    return pa.array([attributes.get("concept:name", str(number)) for number, attributes in numbered], pa.string())


def _read_times(traces: Traces, key: str, source: str) -> np.ndarray:
    values = pl.Series(pl.from_arrow(_whole(traces, key, "time", source)))
    if not len(values):
        return np.array([], "datetime64[us]")
    try:
        return _times.parse(values, source, 0)
    except DataError as error:
        return _one_by_one(values.to_list(), traces.lines, error, source)


def _one_by_one(values: list[str], lines: list[int], error: DataError, source: str) -> np.ndarray:
    """ISO times written in several ways, with a zone and without, as UTC; or the error at the line to blame."""
    times = np.zeros(len(values), "datetime64[us]")
    for at, value in enumerate(values):
        try:
            time = datetime.fromisoformat(value.strip())
            times[at] = (time.astimezone(UTC) if time.tzinfo else time).replace(tzinfo=None)
        except (ValueError, OverflowError):
            problem = error.problem if at == error.row else "is no time"
            raise DataError(problem, file=source, row=lines[at], value=value, mend=error.mend) from error
    return times


def _is_number(column: Column) -> bool:
    return {tag.rpartition(":")[2] for tag in column.tags} <= _NUMBERS


def _parsed(strings: pa.Array) -> pl.Series:
    return pl.Series(pl.from_arrow(strings)).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)


def _check_numbers(traces: Traces, key: str, values: pa.Array, source: str) -> None:
    distinct = values.drop_null().unique()
    bad = _parsed(distinct).is_null()
    if bad.any():
        wrong = distinct[int(bad.arg_max() or 0)].as_py()
        row = traces.lines[values.index(wrong).as_py()]
        raise DataError(f"{key} is no number", file=source, row=row, value=wrong, mend="Mend it, or make it a string.")


def _numbers(coded: pa.DictionaryArray) -> pa.Array:
    numbers = np.append(_parsed(coded.dictionary).to_numpy(), np.nan)
    return pa.array(numbers[coded.indices.fill_null(len(numbers) - 1).to_numpy()])


def _filled(coded: pa.DictionaryArray) -> pa.DictionaryArray:
    return coded.cast(pa.string()).fill_null("").dictionary_encode() if coded.null_count else coded
