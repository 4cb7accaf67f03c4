"""The one interface of every reader."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seqloom.core.component import Component
from seqloom.core.errors import DataError
from seqloom.data._source import Source
from seqloom.data.columns import FLAGS, Columns, Guess
from seqloom.data.sequences import Sequences

BLOCK = 1 << 26


class Reader(Component):
    """Base of every reader. Subclasses write ``sniff``, ``guess`` and ``batches``, ``write`` where it fits."""

    chunked: ClassVar[bool] = False
    """True where ``batches`` needs memory for one block alone."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a reader."""

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config: Any = config if config is not None else type(self).Config()

    @abstractmethod
    def sniff(self, source: Source) -> float:
        """How sure this reader is that the bytes and the name are its format: 0 = no, 1 = certain."""

    @abstractmethod
    def guess(self, source: Source, columns: Columns) -> Guess:
        """What the file means, from its head; an ambiguity is a DataError that lists the choices."""

    @abstractmethod
    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """The sequences in order, one batch for about ``block`` bytes where the format allows it."""

    def read(self, path: str | Path | Source, columns: Columns | None = None) -> Sequences:
        """All sequences of a file."""
        source = Source.of(path)
        parts = list(self.batches(source, columns or Columns()))
        if not sum(map(len, parts)):
            raise DataError("holds no sequence", file=source.name, mend="Check that it is the right file.")
        return Sequences.join(parts)

    def refuse(self, source: Source, columns: Columns, *, but: tuple[str, ...] = ()) -> None:
        """DataError where a column is asked for that this format cannot have; ``but`` are the roles it knows."""
        asked = [FLAGS[role] for role in FLAGS if getattr(columns, role) and role not in but]
        if asked:
            what = f"is read as {type(self).__name__.lower()}, and {asked[0]} means nothing there"
            others = "Leave it away, or name the right format with --reader."
            raise DataError(what, file=source.name, mend=others)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """Write sequences so that ``read`` gives them back; not every format can hold them."""
        raise DataError(f"the reader {type(self).__name__.lower()} cannot write {sequences.kind}", file=path)
