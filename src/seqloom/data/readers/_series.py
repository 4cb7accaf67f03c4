"""Time series in tables: the numbers of one or several columns are the sequence, and they are written in long form.

id, time, y              rows are grouped by id and sorted by time, stably
time, a, b, c            without an id, all rows are one sequence of several channels
"""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.readers._guess import columns_of
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    from seqloom.data.readers._events import Rows

_FILL = "Fill the gap (by the value before it, or by the mean of its neighbours) or delete the row."


def one(rows: "Rows") -> pl.Series:
    """The id of the one sequence that all rows are where no column names a series."""
    return pl.repeat("series", rows.frame.height, eager=True)


def values_of(rows: "Rows", columns: Columns) -> pa.Array:
    """Float64 values of every row, or lists of one number a channel; each must be a finite number."""
    flats = [_numbers(rows, name) for name in columns_of(columns.value, rows.frame)]
    if len(flats) == 1:
        return pa.array(flats[0])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.stack(flats, 1).ravel()), len(flats))


def frame_of_values(sequences: Sequences) -> pl.DataFrame:
    """Long form, one row a step: ``case, time, values, label, group``; what has no name is value, value2, ..."""
    values = sequences.values()
    flat = values.flat.reshape(len(values.flat), -1)
    names = sequences.value_names or [f"value{at + 1 if at else ''}" for at in range(flat.shape[1])]
    case = np.repeat(np.arange(len(sequences)), values.lengths)
    columns = {"case": pl.Series(sequences.ids, dtype=pl.String).gather(case)}
    times = sequences.times()
    if times is not None:
        if times.lengths.tolist() != values.lengths.tolist():
            raise DataError("a time of a whole sequence has no place in a table of steps", file=sequences.source)
        stamped = times.values.dtype == np.int64
        columns["time"] = pl.Series(times.flat.view("datetime64[us]") if stamped else times.flat)
    columns |= {name: pl.Series(flat[:, at]) for at, name in enumerate(names)}
    for role, whole in (("label", sequences.labels), ("group", sequences.groups)):
        if whole is not None:
            columns[role] = pl.Series(whole, dtype=pl.String).gather(case)
    return pl.DataFrame(columns)


def _numbers(rows: "Rows", name: str) -> np.ndarray:
    series = rows.frame[name]
    text = series.dtype == pl.String
    if not (text or series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise rows.error(f"the column {name!r} holds no numbers", 0, "Choose another with --value.", series[0])
    stripped = series.str.strip_chars() if text else series
    numbers = stripped.cast(pl.Float64, strict=False)
    if numbers.null_count():
        at = int(numbers.is_null().arg_max() or 0)
        if stripped[at] is None or stripped[at] == "":
            raise rows.error(f"the column {name!r} has a gap", at, _FILL)
        mend = "Write numbers as 1.5 or -2e3, or choose another column with --value."
        raise rows.error(f"the column {name!r} holds what is no number", at, mend, series[at])
    flat = numbers.to_numpy()
    finite = np.isfinite(flat)
    if not finite.all():
        at = int(np.argmin(finite))
        raise rows.error(f"the column {name!r} holds no finite number", at, _FILL, series[at])
    return flat
