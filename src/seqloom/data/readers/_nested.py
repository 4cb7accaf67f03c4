"""Rows that hold their events as a list of objects: one row an event, the outer fields repeated.

{"id": 1, "label": "x", "events": [{"activity": "a", "cost": 3}, {"activity": "b"}]}

id, label, activity, cost                objects inside objects become columns with dotted names: user.name
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from seqloom.core.errors import DataError
from seqloom.data import _build
from seqloom.data._source import BOM, Source
from seqloom.data.columns import FLAGS, Columns, Guess
from seqloom.data.readers import _events, _guess
from seqloom.data.sequences import Sequences

ROWS = ("row", "row of the file")
"""The column that names a sequence where the outer object does not: the first of these that is free."""
_DEEPEST = 32
_ONE_A_LINE = "Write one array of objects, or one object a line."


@dataclass(frozen=True)
class Flat:
    """A frame without lists of objects, and where its rows stood before."""

    frame: pl.DataFrame
    columns: Columns
    """What was asked for; with the case that the outer objects name."""
    at: np.ndarray | None
    """Number of the outer row, from 0, of every row; None where nothing was nested."""
    notes: tuple[str, ...]

    def guess(self, source: str) -> Guess:
        """The guess of the flat frame."""
        with _what_no_column_holds(source):
            found = _guess.guess(self.frame.head(1000), self.columns, source)
        return replace(found, notes=(*self.notes, *found.notes))

    def sequences(self, guess: Guess, source: str, first_row: int) -> Sequences:
        """Sequences of the flat frame, whose rows and errors count the outer rows."""
        if self.at is None:
            with _what_no_column_holds(source):
                return _events.sequences_of(self.frame, guess, source, first_row)
        try:
            with _what_no_column_holds(source):
                made = _events.sequences_of(self.frame, guess, source, 0)
        except DataError as error:
            if error.row is None:
                raise
            at = first_row + int(self.at[error.row])
            raise DataError(error.problem, file=source, row=at, value=error.value, mend=error.mend) from error
        rows = first_row + self.at[made.rows]
        table = _build.put(made.table, "row", rows)
        known: Any = {"alphabet": made.alphabet, "notes": made.notes, "value_names": made.value_names}
        return Sequences(table, made.kind, source=source, **known)


@contextmanager
def _what_no_column_holds(source: str) -> Iterator[None]:
    """What polars and Arrow raise at types that a role cannot have, such as lists of lists, as an error of the data."""
    try:
        yield
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        problem = f"a column holds what cannot be read so: {str(error).splitlines()[0]}"
        raise DataError(problem, file=source, mend="Choose the columns, for instance by --case and --event.") from error


def flat(frame: pl.DataFrame, given: Columns, source: str) -> Flat:
    """Open objects and the one list of objects; a frame without any comes back as it is."""
    frame = without_objects(frame, source)
    nested = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List) and _is_object(kind.inner)]
    if not nested:
        return Flat(frame, given, None, ())
    if len(nested) > 1:
        problem = f"{len(nested)} columns hold lists of objects: {', '.join(nested)}"
        raise DataError(problem, file=source, row=1, mend="Leave one of them: its objects are the events.")
    name = nested[0]
    counts = frame[name].list.len().fill_null(0).to_numpy().astype(np.int64)
    outer, columns = _with_case(frame.drop(name), given)
    at = np.repeat(np.arange(len(frame)), counts)
    if not len(at):
        raise DataError(f"no row has an event in {name!r}", file=source, row=1, mend="Check how it was made.")
    events = frame[name].explode(empty_as_null=False, keep_nulls=False)
    inner = without_objects(pl.DataFrame({name: events}), source)
    taken = {*outer.columns, *inner.columns}
    bare = {column: column.removeprefix(f"{name}.") for column in inner.columns}
    inner = inner.rename({column: short for column, short in bare.items() if short not in taken})
    if twice := [column for column in inner.columns if column in outer.columns]:
        raise _called_twice(twice[0], source)
    notes = [f"each row holds its events in {name!r}: each of them becomes one row"]
    if columns.case != given.case:
        notes.append(f"column {columns.case!r} names the sequence of an event ({FLAGS['case']} chooses another)")
    if empty := int((counts == 0).sum()):
        notes.append(f"rows that hold no event are left out: {empty}")
    return Flat(pl.concat([outer[at], inner], how="horizontal"), columns, at, tuple(notes))


def json_array(source: Source) -> pl.DataFrame:
    """The objects of a file that is one JSON array of them, all in memory; a row is the number of an object."""
    data = source.content().removeprefix(BOM)
    if data.lstrip()[:1] != b"[":
        raise DataError("is no JSON array", file=source.name, row=1, value=data[:40], mend=_ONE_A_LINE)
    try:
        return pl.read_json(io.BytesIO(data), infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise _array_error(source, data, error) from error


def _array_error(source: Source, data: bytes, error: Exception) -> DataError:
    """Look for the line or the object that polars did not like."""
    try:
        items = json.loads(data)
    except UnicodeDecodeError:
        return source.broken_text(data)
    except RecursionError:
        return DataError("is JSON nested too deeply", file=source.name, mend=_ONE_A_LINE)
    except json.JSONDecodeError as found:
        value = data.split(b"\n")[found.lineno - 1][:40]
        return DataError(f"is no JSON: {found.msg}", file=source.name, row=found.lineno, value=value, mend=_ONE_A_LINE)
    for row, item in enumerate(items, 1):
        if not isinstance(item, dict):
            return DataError("is no JSON object", file=source.name, row=row, value=item, mend=_ONE_A_LINE)
    return DataError(f"is no readable JSON: {str(error).splitlines()[0]}", file=source.name, mend=_ONE_A_LINE)


def _with_case(outer: pl.DataFrame, given: Columns) -> tuple[pl.DataFrame, Columns]:
    """The column that names the outer objects: that of a case, an id that no two share, or their numbers."""
    series = _guess.by_name(outer, "series", given)
    if given.case or _guess.by_name(outer, "case", given) or _guess.surely(series, "series", 2):
        return outer, given
    ids = [name for name in _guess.by_name(outer, "id", given) if outer[name].null_count() == 0]
    if len(ids) == 1 and not outer[ids[0]].is_duplicated().any():
        return outer, replace(given, case=ids[0])
    free = next(name for name in (*ROWS, *(f"row{at}" for at in range(outer.width))) if name not in outer.columns)
    return outer.with_columns(pl.Series(free, np.arange(1, len(outer) + 1))), replace(given, case=free)


def without_objects(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Columns that are objects become one column a field, with a dotted name."""
    for _ in range(_DEEPEST):
        opened = [name for name, kind in frame.schema.items() if _is_object(kind)]
        if not opened:
            return frame
        columns: dict[str, pl.Series] = {}
        for name in frame.columns:
            series = frame[name]
            fields = series.struct.unnest() if name in opened else None
            found = {name: series} if fields is None else {f"{name}.{field}": fields[field] for field in fields.columns}
            for column, values in found.items():
                if column in columns:
                    raise _called_twice(column, source)
                columns[column] = values
        frame = pl.DataFrame(columns)
    problem = f"holds objects inside objects, more than {_DEEPEST} deep"
    raise DataError(problem, file=source, row=1, mend="Keep the fields that matter.")


def _called_twice(column: str, source: str) -> DataError:
    return DataError(f"two columns are called {column!r}", file=source, row=1, mend="Rename one of them.")


def _is_object(kind: object) -> bool:
    return isinstance(kind, pl.Struct)
