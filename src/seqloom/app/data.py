"""What a user hands over, as sequences: a path, a sample's name, a frame, lists, arrays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from seqloom.core.component import Value
from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.training.source import FileSource, located


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
    if str(source) == "-":
        return read("-", columns=known.columns, reader=known.reader)
    place = located(source)
    alike = _ending(place) == _ending(located(known.path))
    return read(place, columns=_present(place, known) if alike else None, reader=known.reader if alike else None)


def _present(place: Path, known: FileSource) -> Columns | None:
    """The columns of the training file, without a class or a group that new data need not have."""
    if known.columns is None:
        return None
    optional = replace(known.columns, label=None, group=None)
    try:
        found = sniff(place, columns=optional, reader=known.reader).columns
    except DataError:
        return known.columns
    return replace(optional, label=found.label, group=found.group)


def _ending(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2].lower()
