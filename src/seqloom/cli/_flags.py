"""Flags that several verbs share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from seqloom.training.source import FileSource

Split = Literal["auto", "time", "group", "random", "position"]
Task = Literal["auto", "next", "forecast", "classify", "regress"]
Head = Literal["auto", "gaussian", "quantiles"]
Column = Annotated[str | None, arg(metavar="COLUMN")]
Folder = Annotated[str | None, arg(metavar="DIR")]
Target = Annotated[str | None, arg(metavar="COLUMN")]
File = Annotated[str | None, arg(metavar="FILE")]
Name = Annotated[str | None, arg(metavar="NAME")]
From = Annotated[str | None, arg(metavar="DIR", name="from")]
Data = Annotated[Positional[str], arg(metavar="FILE")]
Model = Annotated[Positional[str], arg(metavar="M")]


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """How a file is read. What is not said is guessed, and every guess is told."""

    case: Column = None
    """Column that names the sequence of an event; several: user,session."""
    event: Column = None
    """Column of the event."""
    time: Column = None
    """Column of the time: it orders the events, and the split."""
    label: Column = None
    """Column of the class of a sequence."""
    group: Column = None
    """Column of what must not be torn apart by the split."""
    text: Column = None
    """Column of text; one row is one sequence."""
    id: Column = None
    """Column that names a row."""
    value: Column = None
    """Column of the numbers that a sequence consists of, several with commas between: a time series, no symbols."""
    inputs: Annotated[str | None, arg(metavar="COLUMNS")] = None
    """Further columns that networks read beside each symbol, with commas between; gap: time since the last,
    elapsed: since the first; all."""
    stream: bool = False
    """Read a text file as one long sequence."""
    reader: Name = None
    """Name of the reader, where sniffing errs."""

    def source(self, file: str, *, split: str = "auto", test: str | None = None) -> "FileSource":
        """The file with its columns."""
        from seqloom.data.columns import Columns
        from seqloom.training.source import FileSource

        names = ("case", "event", "time", "label", "group", "text", "id", "value", "inputs")
        columns = Columns(**{name: getattr(self, name) for name in names}, stream=self.stream)
        how: Any = split
        return FileSource(
            path=file,
            columns=None if columns == Columns() else columns,
            reader=self.reader,
            how=how,
            test=test,
        )
