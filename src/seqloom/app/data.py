"""What a user hands over, as sequences: a path, a sample's name, a frame, lists, arrays."""

from pathlib import Path
from typing import Any

from seqloom.core.component import Value
from seqloom.data.sequences import Sequences
from seqloom.training.source import SAMPLE, FileSource, located


def source_of(source: Any) -> tuple[FileSource, Sequences | None]:
    """A description of the data, and the data themselves where they are in memory."""
    if isinstance(source, FileSource):
        return source, None
    if isinstance(source, str | Path):
        return FileSource(path=str(source)), None
    return FileSource(), sequences_of(source)


def sequences_of(source: Any, *, like: Value | None = None) -> Sequences:
    """Read anything. ``like``: the columns and the reader of the data that a model was trained on."""
    from seqloom.data.reading import read

    if isinstance(source, Sequences):
        return source
    if isinstance(source, FileSource):
        return source.read()
    known = like if isinstance(like, FileSource) else FileSource()
    if isinstance(source, str | Path):
        place: Any = source if str(source) == "-" else located(source)
        same = str(source).startswith(SAMPLE) or Path(str(source)).suffix == Path(known.path).suffix
        return read(place, columns=known.columns, reader=known.reader if same else None)
    return read(source, columns=known.columns)
