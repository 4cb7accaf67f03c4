"""Anything in, Sequences out: files of every known format, standard input, frames, lists, arrays.

read("log.csv", columns=Columns(case="user", event="page"))     sniff("log.csv").notes says what was guessed
"""

from pathlib import Path
from typing import Any

from seqloom.core.errors import DataError
from seqloom.data import _memory, readers
from seqloom.data._source import Source
from seqloom.data.columns import Columns, Guess
from seqloom.data.readers._base import Reader
from seqloom.data.sequences import Sequences

__all__ = ["Columns", "Guess", "read", "reader_of", "sniff"]


def read(source: Any, *, columns: Columns | None = None, reader: str | Reader | None = None) -> Sequences:
    """Read sequences.

    Args:
        source: A path, ``"-"`` for standard input; a polars, pandas or Arrow table, a dict of columns, dicts one a row;
            or sequences: strings, lists of symbols or of numbers, arrays, tensors, a dict of them by id.
        columns: Which column means what, where the names do not say it.
        reader: Name of the reader (see ``seqloom.data.readers.names()``) where sniffing errs, or a reader itself.
    """
    columns = columns or Columns()
    if isinstance(source, Sequences):
        return source
    if isinstance(source, str | Path | Source):
        opened = Source.of(source)
        return _with_note_on_ids(reader_of(opened, reader).read(opened, columns))
    source, frame, ids = _memory.taken(source, columns)
    if frame is None:
        return _with_note_on_ids(Sequences.of(source, ids=ids))
    from seqloom.data.readers.table import Table

    return _with_note_on_ids(Table().of_frame(frame, columns, source="memory"))


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


def _with_note_on_ids(sequences: Sequences) -> Sequences:
    """All sequences are kept where several share an id; a note says so."""
    import polars as pl

    ids, rows = sequences.table["id"], sequences.table["row"]
    if not len(ids) or all(ids[at].as_py() == str(rows[at].as_py()) for at in (0, -1)):
        return sequences  # named by their rows, which differ
    different = int(pl.Series(ids).n_unique())
    if different < len(ids):
        note = f"ids repeat: {len(ids)} sequences have {different} of them; all are kept, and rows tell them apart"
        sequences.notes = (*sequences.notes, note)
    return sequences
