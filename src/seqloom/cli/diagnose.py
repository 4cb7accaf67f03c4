"""Diagnose a mixer: what it can do and what it cannot, on small synthetic tasks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from seqloom.cli._flags import File, Folder
from seqloom.cli._terminal import Terminal
from seqloom.core.errors import OK, USER_ERROR

if TYPE_CHECKING:
    from rich.table import Table

    from seqloom.app.diagnose import Cell, Diagnosis


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """Train a mixer on small synthetic tasks and tell what it can do: at the length of training, and beyond it.

    Not to solve a task is a result, not an error. What is finished is kept in the folder --out: the same command goes
    on where it was stopped.

    Example:
        seqloom diagnose gru --tasks parity --budget 3steps
    """

    mixer: Annotated[Positional[str], arg(metavar="MIXER")]
    """A mixer, several with commas between, hybrids with +: "s4d,gru,s4d+attention"; or all."""
    tasks: Annotated[str | None, arg(metavar="NAMES")] = None
    """Names with commas between, or all; default: mqar, induction, selective_copy, parity, s3."""
    option: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=VALUE")] = ()
    """An option of the mixer, such as state=16; once for each."""
    budget: str = "20s"
    """Of each training: 20s, 5m, or 1000steps; three learning rates make three trainings."""
    seeds: int = 1
    """Trainings of each mixer on each task."""
    rates: str = "full"
    """How the learning rate is chosen: full (three with the whole budget each), halving (three with a third of it,
    then the best with all of it), or a number."""
    parameters: int = 0
    """Of all layers together: the MLPs make up for what a mixer lacks; 0 = the same MLP for every mixer."""
    out: Folder = None
    """Folder of what is finished; default: diagnosis."""
    report: File = None
    """Write the self-contained HTML page here."""
    table: File = None
    """Write the table here; the ending says how: .csv, .md, .json, .html."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """One JSON object on stdout, everything for people on stderr."""

    def run(self) -> int:
        """Diagnose and report; the exit code tells only whether there is any result."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app._diagnosis_files import about, write_page, write_table
        from seqloom.app.diagnose import diagnose
        from seqloom.app.report import check_table

        if self.table is not None:
            check_table(self.table)
        with terminal.progress() as progress:
            found = diagnose(
                [name.strip().replace("+", ",") for name in self.mixer.split(",") if name.strip()],
                None if self.tasks is None else [name.strip() for name in self.tasks.split(",") if name.strip()],
                options=self.option,
                budget=self.budget,
                seeds=self.seeds,
                rates=self.rates,
                parameters=self.parameters,
                out=self.out or "diagnosis",
                device=self.device,
                progress=progress,
            )
        written = []  # before a word is said: whoever reads along may go away after the first line
        if self.table is not None:
            written.append(f"table: {write_table(found, self.table)}")
        if self.report is not None:
            written.append(f"report: {write_page(found, Path(self.report))}")
        if self.json:
            terminal.give(found.figures())
        for mixer in found.mixers:
            terminal.say(*_card(found.of(mixer)))
        if len(found.mixers) > 1:
            terminal.say(_over(found))
        terminal.note(about(found))
        terminal.say(*written)
        return OK if any(not cell.error for cell in found.cells) else USER_ERROR


def _card(cells: "list[Cell]") -> "list[Table | str]":
    """What one mixer can do, for a terminal; its costs and the learning rates below."""
    from rich.markup import escape
    from rich.table import Table

    from seqloom.app._diagnosis_files import longer, rates, two

    made = Table(box=None, header_style="bold", pad_edge=False, title=escape(cells[0].mixer), title_justify="left")
    made.add_column("task")
    for heading in ("accuracy", "floor", "best possible", "scaled", "longer (scaled)", "state bytes", "step form"):
        made.add_column(heading, justify="right")
    made.add_column("")
    for cell in cells:
        if cell.error:
            made.add_row(escape(cell.task), *[""] * 7, f"[red]{cell.word}[/]: {escape(cell.error)}")
            continue
        state = "" if cell.state_bytes is None else f"{cell.state_bytes:,}"
        form = {None: "none", True: "the same", False: f"[red]differs: {cell.step_gap or 0.0:.0e}[/]"}[cell.agrees]
        own = (f"{cell.accuracy:.1%}", f"{cell.floor:.1%}", f"{cell.oracle:.0%}", two(cell.scaled), longer(cell))
        made.add_row(escape(cell.task), *own, state, form, cell.word)
    done = [cell for cell in cells if not cell.error]
    notes = [f"  {cell.task}: {cell.steps:,} steps; validation loss by learning rate {rates(cell)}" for cell in done]
    return [made, *(_costs(done[-1:])), *notes, ""]


def _costs(done: "list[Cell]") -> list[str]:
    """Costs that hardly differ between tasks, of one of them."""
    lines = []
    for cell in done:
        flops = "" if cell.flops_per_position is None else f", {cell.flops_per_position:,.0f} FLOPs a position"
        lines.append(f"  {cell.parameters:,} parameters{flops}, {cell.tokens_per_second:,.0f} tokens/s on {cell.task}")
    return lines


def _over(found: "Diagnosis") -> "Table":
    """The table over all mixers: scaled accuracy at the length of training, and at the longest one."""
    from rich.markup import escape
    from rich.table import Table

    from seqloom.app._diagnosis_files import rows_over

    heading, *rows = rows_over(found)
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column(heading[0])
    for name in heading[1:]:
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(*map(escape, row))
    return made
