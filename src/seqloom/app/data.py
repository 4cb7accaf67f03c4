"""What a user hands over, as sequences: a path, a sample's name, a frame, lists, arrays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seqloom.core.component import Value
from seqloom.core.errors import DataError
from seqloom.data._mapped import LARGE
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.training.source import FileSource, located

PIECE = 500
"""Symbols of one piece of a sequence that is searched for likeness with itself."""


def is_large(source: FileSource) -> bool:
    """Whether a file is so large that freed memory had better go back to the system."""
    place = None if source.path in ("", "-") else located(source.path)
    return place is not None and place.is_file() and place.stat().st_size >= LARGE


def source_of(source: Any) -> tuple[FileSource, Sequences | None]:
    """A description of the data, and the data themselves where they are in memory."""
    if isinstance(source, FileSource):
        return source, None
    if isinstance(source, str | Path):
        return FileSource(path=str(source)), None
    return FileSource(), sequences_of(source)


def sequences_of(source: Any, *, like: Value | None = None) -> Sequences:
    """Read anything. ``like``: the columns and the reader of the data that a model was trained on."""
    if isinstance(source, Sequences):
        return source
    if isinstance(source, FileSource):
        return source.read()
    known = like if isinstance(like, FileSource) else FileSource()
    if not isinstance(source, str | Path):
        return read(source, columns=known.columns)
    place = Source.of("-") if str(source) == "-" else located(source)
    alike = isinstance(place, Source) or _ending(place) == _ending(located(known.path))
    columns, reader = _columns_for(place, known, known.reader if alike else None)
    return read(place, columns=columns, reader=reader)


def _columns_for(place: Path | Source, known: FileSource, reader: str | None) -> tuple[Columns | None, str | None]:
    """The columns of the training file, without a class or a group that new data need not have, and who reads them.

    Nor a time: events then keep the order of the file, but for another column that looks like one, which is refused. A
    file of another form (Parquet for CSV) has the same columns, or is read by a guess.
    """
    if known.columns is None:
        return None, reader
    optional = replace(known.columns, label=None, group=None)
    # a class, a group: where the data have them; without a time, events keep the order of the file
    for columns in (known.columns, replace(known.columns, group=None), optional, replace(optional, time=None)):
        try:
            found = sniff(place, columns=columns, reader=reader)
        except DataError:
            continue
        if columns.time is not None or found.columns.time is None:
            return replace(columns, label=found.columns.label, group=found.columns.group), found.reader
    return (None, None) if reader is None else (known.columns, reader)


def _ending(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2].lower()


def in_pieces(whole: Sequences) -> Sequences:
    """One long sequence as consecutive pieces of ``PIECE`` symbols, named ``id:first-last``; others as they are."""
    if len(whole) != 1 or int(whole.lengths[0]) < 2 * PIECE:
        return whole
    length = int(whole.lengths[0])
    starts = np.arange(0, length - length % PIECE, PIECE)
    stops = np.append(starts[1:], length)  # the last piece takes the rest
    ids = [f"{whole.ids[0]}:{start + 1}-{stop}" for start, stop in zip(starts, stops, strict=True)]
    return whole.select(np.zeros(len(starts), np.int64)).cut(starts, stops).named(ids)
