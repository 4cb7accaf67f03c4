"""What a mixer can do and what it cannot: trained on small synthetic tasks, judged at their length and beyond it.

Each pair of a mixer and a task is a cell. A finished one is kept in a file that the hash of everything that decides it
names (task, model, budget, seeds, rates, and the code of the mixer): it is not done again, and a cell that fails takes
no other with it. That a mixer does not solve a task is what one wants to know, not a failure.
"""

import difflib
import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import polars as pl

from seqloom.app import _diagnosing
from seqloom.app._arm_progress import ArmProgress
from seqloom.app._diagnosing import Drawn, Examiner, capped, check_rates
from seqloom.app._diagnostics import DEFAULT, DIAGNOSTICS, LAYERS, WIDTH, Diagnostic, run_of
from seqloom.app._options import configured, shown
from seqloom.app.card import versions
from seqloom.app.device import device_named
from seqloom.app.plan import check_mixers
from seqloom.core import discovery
from seqloom.core.errors import CheckpointError, ConfigError, MissingExtra, SeqloomError
from seqloom.core.files import read_json, write_json, write_text
from seqloom.core.fingerprint import code_hash, config_hash, part_files
from seqloom.core.lock import alone
from seqloom.core.protocols import Progress, Silent
from seqloom.models.backbone import pattern
from seqloom.training.budget import Budget, parse
from seqloom.training.run import Run

ALL, CELLS, FIRST_SEED = "all", "cells", 7
SOLVED = 0.95
"""Scaled accuracy from which on a task counts as solved."""
AGREES = 1e-4
"""Largest gap between the two forms that is rounding: the bound of a mixer in float32; two trained layers give 2e-6."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One mixer on one task; scaled accuracy has the floor at 0 and perfection at 1."""

    mixer: str
    task: str
    accuracy: float = 0.0
    """Of the test part at the length of training, mean over the seeds."""
    by_seed: list[float] = field(default_factory=list)
    floor: float = 0.0
    """Accuracy of the best guess that has not read the example."""
    oracle: float = 1.0
    """Accuracy of the best possible answer."""
    longer: dict[str, float | None] = field(default_factory=dict)
    """Accuracy at lengths that training never held; None beyond the reach of the mixer."""
    longer_floor: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    """Learning rate of what was judged."""
    tried: list[dict[str, float | None]] = field(default_factory=list)
    """Every learning rate with its loss on the validation part; None = not finite."""
    steps: int = 0
    seconds: float = 0.0
    """Of the training that was judged, its steps alone."""
    tokens_per_second: float = 0.0
    """Columns that training read in a second."""
    parameters: int = 0
    """Of the whole model."""
    state_bytes: int | None = None
    """Of one sequence as long as training's, all layers."""
    flops_per_position: float | None = None
    """Of the mixers, forward, all layers."""
    step_gap: float | None = None
    """Largest difference between the model position by position and at once, over the largest value."""
    error: str = ""
    """Why there is no result."""
    skipped: bool = False
    """There is no result because an optional package is missing."""

    @property
    def scaled(self) -> float:
        """Accuracy at the length of training, scaled."""
        return (self.accuracy - self.floor) / (1.0 - self.floor)

    @property
    def longest(self) -> tuple[str, float] | None:
        """The longest length that was reached, with the scaled accuracy there."""
        known = [(at, value) for at, value in self.longer.items() if value is not None]
        if not known:
            return None
        at, value = known[-1]
        return at, (value - self.longer_floor[at]) / (1.0 - self.longer_floor[at])

    @property
    def agrees(self) -> bool | None:
        """Whether both forms of the mixer are the same up to rounding; None where there is one alone."""
        return None if self.step_gap is None else self.step_gap <= AGREES

    @property
    def word(self) -> str:
        """The result in a word or two."""
        if self.error:
            return "skipped" if self.skipped else "failed"
        if self.scaled < SOLVED:
            return "not solved"
        if self.longest is None:
            return "solved"
        return "solved, longer too" if self.longest[1] >= SOLVED else "solved, not longer"

    def figures(self) -> dict[str, Any]:
        """By name, ready for JSON."""
        found = {"mixer": self.mixer, "task": self.task, "error": self.error, "skipped": self.skipped}
        return found if self.error else {**asdict(self), "scaled": self.scaled, "word": self.word}


@dataclass(frozen=True)
class Diagnosis:
    """Every cell, mixer by mixer."""

    cells: list[Cell]
    budget: str
    seeds: int
    rates: str
    parameters: int = 0
    """Of all layers; 0 = the same MLP for every mixer."""

    @property
    def mixers(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(dict.fromkeys(cell.mixer for cell in self.cells))

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(dict.fromkeys(cell.task for cell in self.cells))

    def of(self, mixer: str) -> list[Cell]:
        """The cells of one mixer."""
        return [cell for cell in self.cells if cell.mixer == mixer]

    def figures(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "cells": [cell.figures() for cell in self.cells],
            "budget": self.budget,
            "seeds": self.seeds,
            "rates": self.rates,
            "parameters": self.parameters,
            "model": {"width": WIDTH, "layers": LAYERS},
        }

    def frame(self) -> pl.DataFrame:
        """A row a cell and length: ``mixer, task, length, accuracy, floor, scaled`` and the costs; trained = ""."""
        return pl.DataFrame([row for cell in self.cells for row in _rows(cell)], infer_schema_length=None, orient="row")


def _rows(cell: Cell) -> list[dict[str, Any]]:
    cost = ("rate", "steps", "seconds", "tokens_per_second", "parameters", "state_bytes", "flops_per_position")
    own = {name: None if cell.error else getattr(cell, name) for name in (*cost, "step_gap")}
    lengths = {} if cell.error else {"": cell.accuracy, **cell.longer}
    floors = {"": cell.floor, **cell.longer_floor}
    found = []
    for at, accuracy in (lengths or {"": None}).items():
        floor = floors.get(at, 0.0)
        scaled = None if accuracy is None else (accuracy - floor) / (1.0 - floor)
        known = {"length": at, "accuracy": accuracy, "floor": None if cell.error else floor, "scaled": scaled}
        found.append({"mixer": cell.mixer, "task": cell.task, **known, **own, "error": cell.error})
    return found


def diagnose(
    mixers: str | Sequence[str],
    tasks: Sequence[str] | None = None,
    *,
    options: Sequence[str] = (),
    budget: str = "20s",
    seeds: int = 1,
    rates: str = "full",
    parameters: int = 0,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Diagnosis:
    """Train mixers on small synthetic tasks and say what each of them can do.

    Args:
        mixers: One or several, each a name or a hybrid such as ``s4d,attention``; ``all`` = every one there is.
        tasks: Names of diagnostics; None = the five that tell most, ``all`` among them = every one.
        options: ``field=value`` of the mixer, where there is one alone.
        budget: Of each training: ``20s`` or ``1000steps``; three learning rates make three trainings.
        seeds: Trainings of each cell; the learning rate is chosen on the first.
        rates: How the learning rate is chosen: ``full`` (three with the whole budget each), ``halving`` (a third of it
            each, then the best one with all of it), or one rate.
        parameters: Of all layers, mixers and MLPs together: the MLPs' width makes up for what a mixer lacks. 0 = the
            same MLP for every mixer.
        out: Folder in which finished cells are kept; None keeps them in memory.
        device: auto, cpu, cuda.
        progress: Where to tell how far it is.
    """
    if seeds < 1 or parameters < 0:
        raise ConfigError(f"a diagnosis needs a seed and a number of parameters, not {seeds} and {parameters}")
    check_rates(rates)
    each, where = parse(budget), device_named(device)
    asked, names = _mixers([mixers] if isinstance(mixers, str) else mixers, options), _tasks(tasks)
    progress, drawn, cells = progress or Silent(), Drawn(), []
    with alone(None if out is None else Path(out)):
        for text in asked:
            for task in names:
                folder = Path(out) / CELLS if out is not None else None
                plan = _Plan(text, tuple(options), task, each, parameters, folder)
                examiner = Examiner(capped(DIAGNOSTICS[task], each), rates, seeds, drawn, where)
                prefix = f"{len(cells) + 1}/{len(asked) * len(names)} {plan.name} on {task}"
                cells.append(_cell(plan, examiner, ArmProgress(progress, prefix)))
                if cells[-1].error:
                    progress.note(f"{plan.name} on {task} {cells[-1].word}: {cells[-1].error}")
    return Diagnosis(cells, str(each), seeds, rates, parameters)


@dataclass(frozen=True)
class _Plan:
    """What a cell is of."""

    mixers: str
    options: tuple[str, ...]
    task: str
    budget: Budget
    parameters: int
    folder: Path | None

    @property
    def name(self) -> str:
        return shown(self.mixers, self.options)

    def run(self, diagnostic: Diagnostic) -> Run:
        """The training, but for its learning rate."""
        mixers = (configured(self.mixers, self.options),) if self.options else pattern(self.mixers)
        return run_of(diagnostic, mixers, self.budget, FIRST_SEED, self.parameters)


def _mixers(given: Sequence[str], options: Sequence[str]) -> list[str]:
    """Every mixer that is asked for. ConfigError where there is none, or the options are not of it."""
    names = [name for text in given for name in (discovery.names("mixers") if text == ALL else (text,))]
    names = list(dict.fromkeys(names))
    for text in names:
        check_mixers(text)
    if not names:
        raise ConfigError("a diagnosis needs at least one mixer")
    if options and (len(names) > 1 or "," in names[0]):
        raise ConfigError("options belong to one mixer: diagnose it alone")
    if options:
        configured(names[0], options)
    return names


def _tasks(given: Sequence[str] | None) -> list[str]:
    """Every task that is asked for. ConfigError where there is none."""
    names = [name for text in given or DEFAULT for name in (tuple(DIAGNOSTICS) if text == ALL else (text,))]
    for name in names:
        if name not in DIAGNOSTICS:
            close = difflib.get_close_matches(name, DIAGNOSTICS, 2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(DIAGNOSTICS)}"
            raise ConfigError(f"there is no diagnostic task {name!r}; {hint}")
    return list(dict.fromkeys(names))


def _cell(plan: _Plan, examiner: Examiner, progress: Progress) -> Cell:
    """Train, or read what was trained before; what goes wrong is its own trouble and takes no other along."""
    file = None
    try:
        run = plan.run(examiner.diagnostic)
        file = None if plan.folder is None else plan.folder / f"{_stem(plan, examiner, run)}.json"
        if file is not None and file.is_file():
            try:
                return _read(file)
            except (CheckpointError, TypeError, AttributeError) as error:
                progress.note(f"{file} is damaged ({error}): this cell is done anew")
        cell = Cell(mixer=plan.name, task=plan.task, **examiner.measure(run, progress))
        if file is not None:
            write_json(file, asdict(cell))
    except SeqloomError as error:
        return Cell(mixer=plan.name, task=plan.task, error=str(error), skipped=isinstance(error, MissingExtra))
    except Exception as error:  # a mixer that breaks, in whatever way
        if file is not None:
            with suppress(SeqloomError):  # a full disk may be the very error
                write_text(file.with_suffix(".error.txt"), traceback.format_exc())
        word = f"{type(error).__name__}: {error}".splitlines()[0]
        return Cell(mixer=plan.name, task=plan.task, error=word)
    return cell


def _stem(plan: _Plan, examiner: Examiner, run: Run) -> str:
    """Name of a cell's file: readable, and different for everything that decides the figures."""
    longer = {at: task.to_json() for at, task in examiner.diagnostic.longer.items()}
    document = run.to_json()
    decides = {"run": document, "longer": longer, "seeds": examiner.seeds, "rates": examiner.rates}
    code = code_hash([*part_files(document), Path(_diagnosing.__file__)])
    key = config_hash({**decides, "code": code, "version": versions()["seqloom"]})[:16]
    plain = re.sub(r"[^\w.+-]", "-", plan.name)[:80]
    return f"{plain}-{plan.task}-{key}"


def _read(file: Path) -> Cell:
    document = read_json(file)
    unknown = set(document) - {item.name for item in fields(Cell)}
    if unknown:
        raise CheckpointError(f"a cell has no {', '.join(sorted(unknown))}")
    return Cell(**document)
