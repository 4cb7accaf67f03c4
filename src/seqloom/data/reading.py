"""Anything in, Sequences out: files of every known format, standard input, frames, lists, arrays.

read("log.csv", columns=Columns(case="user", event="page"))     sniff("log.csv").notes says what was guessed
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqloom.core.errors import DataError
from seqloom.data import readers
from seqloom.data._source import Source
from seqloom.data.columns import Columns, Guess
from seqloom.data.readers._base import Reader
from seqloom.data.sequences import Sequences

__all__ = ["Columns", "Guess", "read", "reader_of", "sniff"]


def read(source: Any, *, columns: Columns | None = None, reader: str | Reader | None = None) -> Sequences:
    """Read sequences.

    Args:
        source: A path, ``"-"`` for standard input, a polars, pandas or Arrow table, a list or dict of columns, a list
            of strings, of lists of symbols or of arrays.
        columns: Which column means what, where the names do not say it.
        reader: Name of the reader (see ``seqloom.data.readers.names()``) where sniffing errs, or a reader itself.
    """
    columns = columns or Columns()
    if isinstance(source, Sequences):
        return source
    if isinstance(source, str | Path | Source):
        opened = Source.of(source)
        return reader_of(opened, reader).read(opened, columns)
    frame = _frame(source)
    if frame is None:
        return Sequences.of(source)
    from seqloom.data.readers.table import Table

    return Table().of_frame(frame, columns, source="memory")


def sniff(source: str | Path | Source, *, columns: Columns | None = None, reader: str | Reader | None = None) -> Guess:
    """Look at the head of a file: its reader, columns, kind, likely task, and every guess with its flag."""
    opened = Source.of(source)
    return reader_of(opened, reader).guess(opened, columns or Columns())


def reader_of(source: Source, reader: str | Reader | None = None) -> Reader:
    """The reader that was asked for, or the one that is surest; two that are equally sure are an error."""
    if isinstance(reader, Reader):
        return reader
    if reader is not None:
        return readers.get(reader)()  # type: ignore[operator]
    sure = {name: readers.get(name)().sniff(source) for name in readers.names()}  # type: ignore[operator]
    best = max(sure.values())
    found = [name for name, value in sure.items() if value == best]
    if best <= 0 or len(found) > 1:
        problem = "its format is not known" if best <= 0 else f"it could be {' or '.join(found)}"
        choices = ", ".join(readers.names() if best <= 0 else found)
        raise DataError(problem, file=source.name, mend=f"Say --reader with one of: {choices}.")
    return readers.get(found[0])()  # type: ignore[operator]


def _frame(source: Any) -> Any:
    """A polars frame of what is a table, None of what is not."""
    import polars as pl

    home = type(source).__module__.split(".")[0]
    if home == "polars":
        made = source.collect() if isinstance(source, pl.LazyFrame) else source
        return made if isinstance(made, pl.DataFrame) else None
    if home == "pyarrow":
        return pl.from_arrow(source)
    if home == "pandas" and hasattr(source, "columns"):  # a series is a list of sequences
        return pl.from_pandas(source)
    if isinstance(source, Mapping):
        return pl.DataFrame(dict(source))
    if isinstance(source, np.ndarray) or not isinstance(source, Iterable):
        return None
    if isinstance(source, list) and source and isinstance(source[0], Mapping):
        return pl.DataFrame(source, infer_schema_length=None)
    return None
