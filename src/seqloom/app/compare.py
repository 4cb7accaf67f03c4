"""Compare models on one file: same data, same split, same budget, about the same number of parameters, and a baseline.

Every training is an arm in a folder of its own, named by the hash of its run (data, sizes, budget, seed): what is
finished is not done again, what was stopped goes on, and a model that fails does not take the others with it.
"""

import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from seqloom.app import _by_prefix
from seqloom.app._arm_progress import ArmProgress
from seqloom.app._every import BASELINE, check_names, chosen
from seqloom.app.card import data_lines, versions
from seqloom.app.fit import TIMING, Outcome, check_folder, finish, fit_run
from seqloom.app.fitted import Fitted
from seqloom.app.judge import MEASURES, Judgement, in_words, predicted, trivial
from seqloom.app.plan import Loaded, is_neural, load_data
from seqloom.core.errors import CheckpointError, ConfigError, MissingExtra, SeqloomError
from seqloom.core.fingerprint import config_hash
from seqloom.core.lock import alone
from seqloom.core.protocols import Progress, Silent
from seqloom.evaluation.comparison import Comparison as Table
from seqloom.training import checkpoint
from seqloom.training.budget import parse
from seqloom.training.run import Run

FIRST_SEED = 7
DONE, JUDGED = "arm.json", "test.safetensors"


@dataclass(frozen=True)
class Arm:
    """One training and how it did."""

    name: str
    seed: int
    judgement: Judgement
    timing: dict[str, Any]
    events: list[dict[str, Any]]
    fitted: Fitted | None = None
    """The model, where it was trained just now."""
    folder: Path | None = None

    def model(self) -> Fitted:
        """The model, read again if need be."""
        if self.fitted is not None:
            return self.fitted
        if self.folder is None:
            raise ConfigError(f"{self.name} is the trivial answer: there is no model to save")
        return Fitted.load(self.folder)


@dataclass
class Entry:
    """One row of the table."""

    name: str
    arms: list[Arm] = field(default_factory=list)
    error: str = ""
    """Why there is no result."""
    row: Table.Row | None = None
    skipped: bool = False
    """There is no result because an optional package is missing."""

    def mean(self, name: str) -> float:
        """Mean of a figure of the timing over the arms."""
        return float(np.mean([arm.timing[name] for arm in self.arms]))

    @property
    def trained(self) -> bool:
        """Whether there is a model behind the figures; the majority is none."""
        return bool(self.arms) and self.name != "majority"

    @property
    def chosen(self) -> Arm:
        """Of the seeds the one with the lowest validation loss."""
        return min(self.arms, key=_validation)

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return float(np.mean([arm.judgement.accuracy for arm in self.arms]))

    @property
    def further(self) -> tuple[str, ...]:
        """Measures that do not decide."""
        return tuple(self.arms[0].judgement.further) if self.arms else ()

    def figures(self, measure: str) -> dict[str, Any]:
        """By name, ready for JSON."""
        if self.row is None:
            return {"name": self.name, measure: None, "error": self.error, "skipped": self.skipped}
        own = {name: self.mean(name) for name in ("seconds", "tokens_per_second", "memory", "parameters", "taken")}
        return {
            "name": self.name,
            measure: self.row.mean,
            "spread": self.row.spread,
            "low": self.row.low,
            "high": self.row.high,
            "accuracy": self.accuracy,
            **{name: float(np.mean([arm.judgement.figures()[name] for arm in self.arms])) for name in self.further},
            "parameters": round(own["parameters"]),
            "seconds": own["seconds"],
            "tokens_per_second": own["tokens_per_second"],
            "memory": round(own["memory"]),
            "steps": round(own["taken"]),
            "seeds": len(self.arms),
            "ties": list(self.row.ties),
            "best": self.row.best,
            "error": "",
            "skipped": False,
        }


@dataclass
class Comparison:
    """The table, best first; failed models last."""

    task: str
    entries: list[Entry]
    budget: str
    seeds: int
    data: dict[str, Any]
    split: dict[str, Any]
    notes: list[str]
    predicts: str = "next"
    """Symbols (next), values, or classes (classify)."""
    loaded: Loaded | None = field(default=None, repr=False)
    """The data, for a closer look at the best model."""

    @property
    def measure(self) -> str:
        """Name of what decides."""
        return MEASURES[self.predicts]

    @property
    def unit(self) -> str:
        """Of the number that is told after every event: hours, or its column; empty for other tasks."""
        return "" if self.loaded is None or (told := self.loaded.prepared.target) is None else told.unit

    @property
    def baseline(self) -> str:
        """Name of the trivial answer."""
        return BASELINE[self.predicts]

    @property
    def best(self) -> Entry:
        """The first row. ConfigError where every model failed."""
        if not self.entries or self.entries[0].row is None:
            raise ConfigError("every model failed; the table says why")
        return self.entries[0]

    def figures(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "task": self.task,
            **({"unit": self.unit} if self.unit else {}),
            "models": [entry.figures(self.measure) for entry in self.entries],
            "data": self.data,
            "split": self.split,
            "budget": self.budget,
            "seeds": self.seeds,
            "notes": self.notes,
            "by_prefix_length": self.by_prefix_length().to_dicts(),
        }

    def by_prefix_length(self) -> pl.DataFrame:
        """How good each model is by how much it had read, early or late in a sequence.

        Returns:
            ``model, from, to, sequences, symbols, bits, low, high, accuracy``, a row a model and bin of prefix lengths
            (``evaluation/by_prefix_length.py``): 0 = nothing was read yet. Low and high are over test sequences, or
            pieces of few long ones, not over seeds. Classes: by the length of the sequence. Forecasts: ``mase`` in
            place of bits, by steps ahead; numbers: ``mae``. A finished arm of an earlier version has no rows.
        """
        arms = {entry.name: entry.arms for entry in self.entries if entry.row is not None}
        done = {name: _by_prefix.average([arm.judgement.by_prefix for arm in own]) for name, own in arms.items()}
        return _by_prefix.frame(done, self.predicts)

    def sentence(self) -> str:
        """The result in plain words."""
        first, has = self.best, "has" if self.predicts in ("forecast", "regress") else "needs"
        if first.row is None or first.row.mean is None:
            return "No model gave every test sequence a finite score."
        text = f"{first.name} is best with {in_words(first.row.mean, self.predicts, self.unit)}"
        ties = [name for name in first.row.ties if name != first.name]
        if ties:
            text += f", but cannot be told apart from {_and(ties)}"
        base = next((entry for entry in self.entries if entry.name == self.baseline and entry.row is not None), None)
        if base is not None and base is not first and base.row is not None and base.row.mean:
            text += f"; the trivial answer ({base.name}) {has} {base.row.mean:.3f}"
        return text + "."

    def save_best(self, folder: str | Path) -> Path:
        """Save the best model: of its seeds the one with the lowest validation loss."""
        ranked = [entry for entry in self.entries if entry.row is not None and entry.trained]
        if not ranked:
            raise ConfigError("every model failed: there is none to save")
        check_folder(Path(folder), flag="--save-best")
        arm = ranked[0].chosen
        fitted = arm.model()
        if arm.folder is not None and (arm.folder / "card.md").is_file():
            fitted.files.setdefault("card.md", (arm.folder / "card.md").read_text(encoding="utf-8"))
        saved = fitted.save(folder)
        checkpoint.write_json(saved / TIMING, arm.timing)
        return saved


def compare(
    source: Any,
    models: str | Sequence[str] | None = None,
    *,
    task: str = "auto",
    budget: str = "60s",
    seeds: int = 1,
    out: str | Path | None = None,
    test: str | None = None,
    head: str = "auto",
    horizon: int = 0,
    target: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Comparison:
    """Train models on the same data and say which differences are larger than the noise.

    Args:
        source: A path, ``sample:NAME``, a FileSource, a frame, lists or arrays.
        models: Recipes, classical models, mixers or hybrids, one or several; the trivial baseline is added. None = a
            choice for symbols or for real values; ``all`` = every one that suits the data.
        task: next, forecast, classify, regress, or auto: forecast with a horizon, regress with a target, classify
            where there are labels.
        budget: Of each training: ``60s`` or ``2000steps``.
        seeds: Trainings of each network; classical models do not depend on one.
        out: Folder in which finished arms are kept; None keeps them in memory.
        test: A file that is the test part.
        head: Of networks over real values, or that tell a number: gaussian, quantiles, or auto.
        horizon: Task forecast: how many steps ahead.
        target: Task regress: ``remaining``, or the column whose value at the end is told; None = the label.
        device: auto, cpu, cuda.
        progress: Where to tell how far it is.
    """
    if seeds < 1 or (models is not None and not models):
        raise ConfigError("a comparison needs at least one model and one seed")
    given = list(dict.fromkeys([models] if isinstance(models, str) else models or ()))
    check_names(given)
    progress = progress or Silent()
    loaded = load_data(source, task=task, test=test, head=head, horizon=horizon, target=target)
    kind = predicted(loaded.prepared)
    names, left_out = chosen(given, loaded, kind)
    loaded.notes += left_out
    entries = [Entry(name) for name in names]
    plans = _plans(entries, loaded, budget, seeds)
    for said in (_cost(plans, budget, None if out is None else Path(out)), *left_out):
        progress.note(said)
    with alone(None if out is None else Path(out)):
        for number, (entry, run) in enumerate(plans, 1):
            if entry.error:
                continue
            shown = f"{number}/{len(plans)} {entry.name}" + (f" seed {run.seed}" if run.seed else "")
            folder = None if out is None else Path(out) / "arms" / arm_name(entry.name, run)
            _train(entry, run, loaded, folder, device, ArmProgress(progress, shown))
            if entry.error:
                progress.note(f"{entry.name} {'is skipped' if entry.skipped else 'failed'}: {entry.error}")
    if kind == "classify":
        entries.append(_majority(loaded))
    return _table(entries, loaded, budget, seeds)


def _train(entry: Entry, run: Run, loaded: Loaded, folder: Path | None, device: str, progress: Progress) -> None:
    """Add an arm to an entry; whatever goes wrong is the entry's own trouble and takes no other with it."""
    try:
        entry.arms.append(_arm(entry.name, run, loaded, folder, device, progress))
    except SeqloomError as error:
        entry.error, entry.skipped = str(error), isinstance(error, MissingExtra)
    except (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        entry.error = f"{type(error).__name__}: {error}".splitlines()[0]
        if folder is not None:
            with suppress(SeqloomError):  # a full disk may be the very error
                checkpoint.write_text(folder / "error.txt", traceback.format_exc())


def arm_name(name: str, run: Run) -> str:
    """Folder of one training: readable, and different for every different run."""
    key = config_hash({"run": run.to_json(), "version": versions()["seqloom"]})[:16]
    plain = re.sub(r"[^\w.+-]", "-", name.replace("*", "x"))[:80]
    return f"{plain}-{run.seed}-{key}"


def _plans(entries: list[Entry], loaded: Loaded, budget: str, seeds: int) -> list[tuple[Entry, Run]]:
    """Every training; a model whose run cannot even be made has failed already."""
    plans = []
    for entry in entries:
        try:
            first = loaded.run(entry.name, budget=budget, seed=FIRST_SEED)
        except SeqloomError as error:
            entry.error, entry.skipped = str(error), isinstance(error, MissingExtra)
            continue
        count = seeds if is_neural(first.model) else 1
        plans += [(entry, loaded.run(entry.name, budget=budget, seed=FIRST_SEED + k)) for k in range(count)]
    return plans


def _cost(plans: list[tuple[Entry, Run]], budget: str, out: Path | None) -> str:
    """One sentence before anything long starts."""
    left = [(e, run) for e, run in plans if out is None or not (out / "arms" / arm_name(e.name, run) / DONE).exists()]
    neural = sum(is_neural(run.model) for _, run in left)
    each = parse(budget)
    done = f", {len(plans) - len(left)} finished before" if len(left) < len(plans) else ""
    words = f"{len(plans)} trainings{done}; {neural} {'network' if neural == 1 else 'networks'} of {each} each"
    if each.seconds is not None:
        minutes, seconds = divmod(round(neural * each.seconds), 60)
        words += f": about {minutes} min {seconds:02d} s, and some seconds for the others and for judging"
    return words


def _arm(name: str, run: Run, loaded: Loaded, folder: Path | None, device: str, progress: Progress) -> Arm:
    """Train, or read what was trained before."""
    if folder is not None and (folder / DONE).is_file():
        try:
            return _read_arm(name, run, loaded, folder)
        except (SeqloomError, KeyError, TypeError) as error:
            progress.note(f"{folder} is damaged ({error}): this arm is trained anew")
    got: Outcome = fit_run(run, loaded, name=name, out=folder, resume=True, device=device, progress=progress)
    if folder is not None:
        arrays = {key: torch.from_numpy(value) for key, value in got.judgement.arrays().items()}
        checkpoint.save(folder / JUDGED, arrays, {})
        checkpoint.write_json(folder / DONE, {"timing": got.timing, "events": got.events})
        finish(folder)
    return Arm(name, run.seed, got.judgement, got.timing, got.events, got.fitted, folder)


def _read_arm(name: str, run: Run, loaded: Loaded, folder: Path) -> Arm:
    tensors, _ = checkpoint.load(folder / JUDGED)
    document = checkpoint.read_json(folder / DONE)
    finish(folder)
    arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
    judgement = Judgement.of(predicted(loaded.prepared), arrays)
    return Arm(name, run.seed, judgement, document["timing"], document["events"], None, folder)


def _majority(loaded: Loaded) -> Entry:
    timing = {"seconds": 0.0, "tokens_per_second": 0.0, "memory": 0, "taken": 0}
    parameters = len(loaded.prepared.classes) - 1
    return Entry("majority", [Arm("majority", 0, trivial(loaded.prepared), {**timing, "parameters": parameters}, [])])


def _table(entries: list[Entry], loaded: Loaded, budget: str, seeds: int) -> Comparison:
    """Judge the differences and sort."""
    done = [entry for entry in entries if entry.arms and not entry.error]
    failed = [entry for entry in entries if entry not in done]
    notes = list(loaded.notes)
    if done:
        sums = {entry.name: np.stack([arm.judgement.bits_N for arm in entry.arms]) for entry in done}
        counts_N = done[0].arms[0].judgement.count_N
        if any(not np.array_equal(arm.judgement.count_N, counts_N) for entry in done for arm in entry.arms):
            raise CheckpointError("finished arms were judged on other test sequences; choose another --out")
        table = Table.of(sums, counts_N)
        least = _by_prefix.floor(predicted(loaded.prepared))
        rows = {row.name: row if row.low is None else replace(row, low=max(row.low, least)) for row in table.rows}
        for entry in done:
            entry.row = rows[entry.name]
        done.sort(key=lambda entry: [row.name for row in table.rows].index(entry.name))
        notes += table.notes
    run = loaded.base
    leaks = [] if loaded.prepared.leakage is None else list(loaded.prepared.leakage.sentences)
    cut = loaded.prepared.split
    return Comparison(
        task=run.task,
        predicts=predicted(loaded.prepared),
        entries=[*done, *failed],
        budget=budget,
        seeds=seeds,
        data={"source": getattr(run.data, "path", "") or "memory", "lines": data_lines(run, loaded.prepared)},
        split={
            "how": "" if cut is None else cut.how,
            **{name: len(part) for name, part in loaded.prepared.parts.items()},
            "leakage": leaks,
        },
        notes=notes,
        loaded=loaded,
    )


def _validation(arm: Arm) -> float:
    looks = [event["loss"] for event in arm.events if event["kind"] == "look"]
    return min(looks, default=arm.judgement.bits)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
