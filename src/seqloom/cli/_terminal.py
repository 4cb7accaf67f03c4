"""Where the command line writes: answers on stdout, everything else on stderr, and a live display of progress."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from seqloom.core.errors import ConfigError, harmless
from seqloom.core.files import check_writable, replacing

if TYPE_CHECKING:
    import polars as pl

ROWS = 40
"""Most rows of an answer that a terminal shows."""


WIDTH = 160
"""Columns of a line that goes to a file or a pipe."""


class Terminal:
    """The two streams of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        """With ``as_json`` stdout carries one JSON object and people read stderr."""
        self.as_json = as_json
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)

    def say(self, *things: Any) -> None:
        """For people: text is shown as it is, markup in it means nothing."""
        console = self.err if self.as_json else self.out
        for thing in things:
            console.print(_shown(thing) if isinstance(thing, str) else thing)

    def note(self, text: str) -> None:
        """A remark on the way."""
        self.err.print(_shown(text), style="dim")

    def give(self, document: Any) -> None:
        """The one JSON object."""
        sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")
        sys.stdout.flush()

    def frame(self, frame: "pl.DataFrame", to: str | None = None) -> None:
        """An answer: to a file by its ending, as JSON, as a table for eyes, or as CSV for another program."""
        if to is not None:
            write_frame(frame, Path(to))
            self.note(f"{len(frame):,} rows -> {to}")
        elif self.as_json:
            self.give({"rows": _finite(frame.to_dicts())})
        elif self.out.is_terminal:
            self.out.print(table_of(frame))
            if len(frame) > ROWS:
                self.note(f"{ROWS} of {len(frame):,} rows; --to FILE writes all of them")
        else:
            sys.stdout.write(flat(frame).write_csv())

    def progress(self) -> "Display":
        """A live display; use it in a ``with``."""
        return Display(Console(file=sys.stderr, highlight=False, width=None if sys.stderr.isatty() else WIDTH))


class Display:
    """Progress as rich draws it; on a stream that is no terminal only stages and notes are written."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.said = ""

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def stage(self, name: str, total: int | None = None, unit: str = "step") -> None:
        """A new line takes the place of the last one."""
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(_shown(name), total=total, figures="")
        if not self.console.is_terminal and name != self.said:
            self.console.print(_shown(name), style="dim")
            self.said = name

    def advance(self, n: int = 1, values: Mapping[str, Any] | None = None) -> None:
        """Move the bar; the figures stand beside it."""
        if self.task is None:
            return
        if values:
            figures = "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
            self.bars.update(self.task, figures=_shown(figures))
        self.bars.advance(self.task, n)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.bars.console.print(_shown(text))


def _console(stream: Any) -> Console:
    """As wide as the terminal; wide enough for every column where there is none."""
    return _Piped(file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else WIDTH)


class _Piped(Console):
    """A console whose reader may go away: the command line ends in peace, where rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Let the command line see it."""
        raise BrokenPipeError


def table_of(frame: "pl.DataFrame") -> Table:
    """The first rows for a terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, kind in frame.schema.items():
        table.add_column(_shown(name), justify="right" if kind.is_numeric() else "left", overflow="ellipsis")
    for row in frame.head(ROWS).iter_rows():
        table.add_row(*(_shown(_cell(value)) for value in row))
    return table


ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl")


def check_frame(path: Path) -> None:
    """Refuse a file that ``write_frame`` could not write: its ending, or its place."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path}: the ending of --to says the format; there are {', '.join(ENDINGS)}")
    check_writable(path)


def write_frame(frame: "pl.DataFrame", path: Path) -> None:
    """Write a frame, whole or not at all; the ending says how."""
    import polars as pl

    check_frame(path)
    with replacing(path) as part:
        try:
            if path.suffix == ".parquet":
                frame.write_parquet(part)
            elif path.suffix == ".jsonl":
                frame.write_ndjson(part)
            else:
                flat(frame).write_csv(part, separator="\t" if path.suffix == ".tsv" else ",")
        except pl.exceptions.PolarsError as error:  # that is what it makes of a full disk under a Parquet file
            raise OSError(str(error)) from error


def flat(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Vectors as one column a number, for formats without lists."""
    import polars as pl

    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Array):
            fields = [f"{name}_{at}" for at in range(kind.size)]
            frame = frame.with_columns(pl.col(name).arr.to_struct(fields)).unnest(name)
    return frame


def _shown(text: str) -> str:
    """Text as it is: neither rich nor the terminal takes anything in it for a command."""
    return escape(harmless(text))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return "[" + ", ".join(f"{item:.3f}" for item in value[:4]) + (", …]" if len(value) > 4 else "]")
    text = str(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON has no infinity."""
    return [{k: None if isinstance(v, float) and v - v != 0.0 else v for k, v in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
