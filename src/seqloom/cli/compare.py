"""Train several models on a file and say which differences are larger than the noise."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from seqloom.cli._flags import Data, DataFlags, File, Folder, Head, Split, Target, Task
from seqloom.cli._terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from seqloom.app.compare import Comparison


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Train several models on a file: same data, same budget, about equal sizes, a trivial baseline, ties said.

    What is finished is kept in the folder --out: the same command goes on where it was stopped.

    Example:
        seqloom compare sample:flights --models unigram,ngram,gru --budget 2s --report report.html
    """

    file: Data
    """File of sequences, - for stdin, or sample:NAME."""
    models: str | None = None
    """Names with commas between; hybrids with +: "ngram,gru,s4d*3+attention"; all; default: seven that suit."""
    budget: str = "60s"
    """Of each training: 60s, 5m, 1h, or 2000steps."""
    seeds: int = 1
    """Trainings of each network."""
    task: Task = "auto"
    """What is asked; auto: forecast with --horizon, regress with --target, classify with labels, else next."""
    horizon: int = 0
    """Task forecast: how many steps ahead."""
    target: Target = None
    """Task regress: what is told after every event: remaining (time until the last one), or the column whose value
    at the end it is."""
    head: Head = "auto"
    """The kind of distribution that networks give; auto: gaussian of real values, quantiles of a number."""
    test: File = None
    """File that is the test part."""
    split: Split = "auto"
    """How the held-out parts are chosen."""
    out: Folder = None
    """Folder of finished arms; default: the file's name and -compare."""
    save_best: Folder = None
    """Save the best model here."""
    report: File = None
    """The self-contained HTML page; default: report.html in the folder --out."""
    hide_sequences: bool = False
    """Keep raw data out of the report."""
    table: File = None
    """Write the table here too; the ending says how: .csv, .md, .json, .html."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """One JSON object on stdout, everything for people on stderr."""
    data: DataFlags = field(default_factory=DataFlags)

    def run(self) -> int:
        """Compare and report."""
        terminal = Terminal(as_json=self.json)
        source = self.data.source(self.file, split=self.split, test=self.test)
        out = self.out or f"{source.name}-compare"
        names = None if self.models is None else _names(self.models)
        from seqloom.app.compare import compare
        from seqloom.app.data import is_large
        from seqloom.app.fit import check_folder
        from seqloom.app.report import check_table, write, write_table
        from seqloom.kernels._memory import keep_pages

        if not is_large(source):
            keep_pages()
        if self.table is not None:
            check_table(self.table)
        if self.save_best is not None:
            check_folder(Path(self.save_best), flag="--save-best")
        with terminal.progress() as progress:
            found = compare(
                source,
                names,
                task=self.task,
                head=self.head,
                horizon=self.horizon,
                target=self.target,
                budget=self.budget,
                seeds=self.seeds,
                out=out,
                device=self.device,
                progress=progress,
            )
        written = []  # before a word is said: whoever reads along may go away after the first line
        if self.save_best is not None:
            written.append(f"saved {found.best.name} in {found.save_best(self.save_best)}/")
        if self.table is not None:
            written.append(f"table: {write_table(found, self.table)}")
        page = write(found, self.report or Path(out) / "report.html", hide_sequences=self.hide_sequences)
        if self.json:
            terminal.give(found.figures())
        terminal.say(shown(found), *([f"\n{found.sentence()}"] if found.entries[0].row is not None else []))
        for note in found.notes[-2:]:
            terminal.note(note)
        terminal.say(*written, f"report: {page}")
        return 0 if any(entry.row is not None for entry in found.entries if entry.name != found.baseline) else 2


def _names(models: str) -> list[str]:
    return [name.strip().replace("+", ",") for name in models.split(",") if name.strip()]


def shown(found: "Comparison") -> "Table":
    """The comparison for a terminal; of real values, how many lie inside the central 80 % takes the place of right."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False)
    unit = f"mae ({found.unit})" if found.predicts == "regress" else found.measure.replace("_per_", "/")
    right = "in 80%" if found.predicts in ("values", "forecast", "regress") else "right"
    made.add_column("model")
    for heading in (unit, "± seeds", right, "parameters", "seconds", "tokens/s", "MB"):
        made.add_column(heading, justify="right")
    made.add_column("tied with")
    for entry in found.entries:
        if entry.row is None:
            word = "[yellow]skipped[/]" if entry.skipped else "[red]failed[/]"
            made.add_row(escape(entry.name), f"{word}: {escape(entry.error)}")
            continue
        one = entry.figures(found.measure)
        made.add_row(
            f"[bold green]{escape(entry.name)}[/]" if one["best"] else escape(entry.name),
            f"{one[found.measure]:.3f}" if one[found.measure] is not None else "-",
            f"{one['spread']:.3f}" if one["spread"] is not None else "",
            f"{one['accuracy']:.1%}",
            f"{one['parameters']:,}",
            f"{one['seconds']:.1f}",
            f"{one['tokens_per_second']:,.0f}",
            f"{one['memory'] / 1e6:.1f}",
            escape(", ".join(one["ties"])),
        )
    return made
