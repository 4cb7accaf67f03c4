"""What Python holds as a table or as sequences: frames of other libraries, columns, rows, arrays, tensors.

{"case": [...], "event": [...]}      columns, all of one length, at least one with a name that says what it is
{"a": "text", "b": [0.5, 1.5]}       sequences by id
[{"case": 1, "event": "x"}, ...]     rows, from a list or a generator
"""

from collections.abc import Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from seqloom.core.errors import DataError
from seqloom.data._build import as_array
from seqloom.data.columns import FLAGS, Columns

if TYPE_CHECKING:
    import polars as pl

Taken = tuple[Any, "pl.DataFrame | None", list[str] | None]
"""Sequences, or the frame of a table, and the ids of sequences."""
_OTHERS = (AttributeError, ImportError, IndexError, KeyError, OverflowError, TypeError, ValueError)
"""What other libraries raise at data that they cannot take."""


def taken(source: Any, columns: Columns) -> Taken:
    """What a table is becomes a polars frame; anything else stays for ``Sequences.of``, perhaps with ids."""
    frame = _frame_of_library(source)
    if frame is not None:
        return None, frame, None
    if isinstance(source, Mapping):
        return _mapping(source, columns)
    source = list(source) if isinstance(source, Iterator) and not hasattr(source, "read") else as_array(source)
    if isinstance(source, np.ndarray) and source.dtype.names:
        return None, _frame({name: source[name] for name in source.dtype.names}), None
    if isinstance(source, list | tuple) and any(isinstance(row, Mapping) for row in source):
        return None, _rows(list(source)), None
    return source, None, None


def _frame_of_library(source: Any) -> "pl.DataFrame | None":
    """Tables of polars, Arrow and pandas; a series or a column is no table but a list of sequences."""
    import polars as pl

    home = type(source).__module__.split(".")[0]
    try:
        if home == "polars":
            made = source.collect() if isinstance(source, pl.LazyFrame) else source
            return made if isinstance(made, pl.DataFrame) else None
        if home == "pyarrow":
            whole = next((getattr(source, name) for name in ("to_table", "read_all") if hasattr(source, name)), None)
            table = whole() if whole else source
            return _unnested(pl.from_arrow(table)) if hasattr(table, "column_names") or whole else None
        if home == "pandas" and hasattr(source, "columns"):
            return pl.from_pandas(_with_index(source))
    except (*_OTHERS, pl.exceptions.PolarsError) as error:
        raise _refused(f"this table of {home} cannot be taken", error) from error
    return None


def _unnested(made: Any) -> "pl.DataFrame":
    import polars as pl

    return made if isinstance(made, pl.DataFrame) else made.struct.unnest()


def _with_index(frame: Any) -> Any:
    """A pandas frame whose index is a column where it means something: it has a name, or it is time."""
    index = frame.index
    if type(index).__name__ == "DatetimeIndex" and index.name is None:
        return frame.rename_axis("time").reset_index()
    return frame.reset_index() if any(name is not None for name in index.names) else frame


def _mapping(source: Mapping[Any, Any], columns: Columns) -> Taken:
    """Columns of a table, or sequences by id."""
    names, values = list(source), [as_array(value) for value in source.values()]
    asked = [getattr(columns, role) for role in FLAGS if getattr(columns, role)]
    meant = any(_means_something(name) for name in names) or bool(asked)
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, Sized) or getattr(value, "ndim", 1) == 0:
            mend = "Hand over a dict of columns, or of sequences by id; several such dicts go into a list."
            raise DataError(f"the entry {name!r} is {type(value).__name__}", file="memory", value=value, mend=mend)
    strings = any(isinstance(value, str | bytes) for value in values)
    lengths = {len(value) for value in values}
    if strings or len(lengths) != 1 or not all(isinstance(name, str) for name in names):
        if asked or (meant and len(lengths) > 1 and not strings):
            sizes = ", ".join(f"{name} {len(value)}" for name, value in zip(names[:8], values, strict=False))
            mend = "Give all columns one length; sequences under such names are handed over as list(them.values())."
            raise DataError(f"columns differ in their lengths: {sizes}", file="memory", mend=mend)
        return values, None, [str(name) for name in names]
    if not meant and all(isinstance(value, np.ndarray) and value.ndim > 1 for value in values):
        return values, None, names
    if not meant:
        shown = ", ".join(map(repr, names[:8]))
        mend = "Say Columns(...) for a table; hand over list(them.values()) or unequal lengths for sequences by id."
        raise DataError(f"{shown} may be columns or ids of sequences", file="memory", mend=mend)
    return None, _frame(dict(zip(names, values, strict=True))), None


def _means_something(name: Any) -> bool:
    from seqloom.data.readers._guess import NAMES, letters

    return any(letters(str(name)) in tier for tiers in NAMES.values() for tier in tiers)


def _rows(rows: list[Any]) -> "pl.DataFrame":
    import polars as pl

    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            mend = "Hand over dicts only, or sequences only."
            raise DataError("is no dict like the others", file="memory", row=number, value=row, mend=mend)
    try:
        return pl.DataFrame([dict(row) for row in rows], infer_schema_length=None)
    except (*_OTHERS, pl.exceptions.PolarsError) as error:
        raise _refused("these rows are no table", error) from error


def _frame(columns: Mapping[str, Any]) -> "pl.DataFrame":
    import polars as pl

    try:
        return pl.DataFrame(dict(columns))
    except (*_OTHERS, pl.exceptions.PolarsError) as error:
        raise _refused("these columns are no table", error) from error


def _refused(problem: str, error: Exception) -> DataError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"{problem}: {first}", file="memory", mend="Give every column values of one type.")
