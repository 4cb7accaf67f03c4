"""From a run's data to examples: read, split, learn vocabulary and scales on the training part alone, encode.

Nothing is learnt from the validation and the test part: not the vocabulary, not the scales, not the classes.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seqloom.core import discovery
from seqloom.core.errors import ConfigError, DataError
from seqloom.core.sizes import Sizes
from seqloom.data._mapped import LARGE, give_back
from seqloom.data.examples import Examples
from seqloom.data.features import ALL, Features, wanted
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.splits import LeakageReport, Split, leakage, split
from seqloom.data.target import Target
from seqloom.models._base import Model
from seqloom.objectives.regress import LABEL
from seqloom.tokenizers._base import Tokenizer
from seqloom.training.run import Run
from seqloom.training.source import FileSource

PARTS = ("train", "valid", "test")
OWN = "own"
"""The label of the numbers in their own unit, which classical models count; networks learn the scaled ones."""


@dataclass(frozen=True)
class Learnt:
    """What is learnt from the training part before any model sees it."""

    tokenizer: Tokenizer | None = None
    """None where the sequences are real values."""
    features: Features | None = None
    """How values and inputs are scaled, where there are any."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    target: Target | None = None
    """The number that is told after every event, its unit and how it is scaled."""


@dataclass
class Prepared:
    """Data that a training can eat."""

    sizes: Sizes
    train: Examples
    valid: Examples
    test: Examples
    tokenizer: Tokenizer | None = None
    """None where the sequences are real values."""
    features: Features | None = None
    """How values and inputs are scaled, where there are any."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    notes: list[str] = field(default_factory=list)
    """What was decided on the way, in sentences: how the data were split, what was cut."""
    parts: dict[str, Sequences] = field(default_factory=dict)
    """The sequences of ``train``, ``valid`` and ``test`` with their ids, where the data came from a file."""
    split: Split | None = None
    leakage: LeakageReport | None = None
    horizon: int = 0
    """Steps ahead that a forecast is judged on; 0 = the next value."""
    target: Target | None = None
    """The number that is told after every event, its unit and how it is scaled."""


def prepare(
    run: Run,
    sequences: Sequences | None = None,
    *,
    learnt: Learnt | None = None,
) -> Prepared:
    """Make the examples of a run.

    Args:
        run: What is trained, on what.
        sequences: The data, where it has been read already or came from memory.
        learnt: What was learnt elsewhere, for a model that goes on from there.

    Raises:
        DataError: There is nothing to learn from, or the task asks for what the data lack.
    """
    if not isinstance(run.data, FileSource):
        return _made(run)
    whole = run.data.read() if sequences is None else sequences
    whole, cut = _divided(run, run.data, whole)
    if run.task == "regress":
        _check_whole(run, whole, cut)
    parts, notes = dict(zip(PARTS, cut.parts(whole), strict=True)), list(cut.notes)
    if run.task == "classify":
        parts = {name: _labelled(part, name, notes) for name, part in parts.items()}
    if not len(parts["train"]):
        raise DataError("holds nothing to learn from", file=whole.source, mend="It needs at least one sequence.")
    if learnt is None:
        train = parts["train"]
        classes = _classes(train) if run.task == "classify" else ()
        target = _target(run, train) if run.task == "regress" else None
        learnt = Learnt(_fitted(run, train), _scaled(run.data, train.without(run.target)), classes, target)
    tokenizer, features, classes = learnt.tokenizer, learnt.features, learnt.classes
    made = {name: _examples(part, learnt) for name, part in parts.items()}
    window = run.batch.window if run.task != "classify" and issubclass(run.model.owner, Model) else 0
    if window:
        made = {name: examples.windows(window) for name, examples in made.items()}
    report = leakage(whole, cut)
    if whole.table.nbytes >= LARGE:
        give_back()
    return Prepared(
        sizes=replace(sizes_of(tokenizer, features, classes), targets=int(learnt.target is not None)),
        **made,
        tokenizer=tokenizer,
        features=features,
        classes=classes,
        notes=notes,
        parts=parts,
        split=cut,
        leakage=report,
        horizon=run.horizon,
        target=learnt.target,
    )


def _made(run: Run) -> Prepared:
    """The data of a synthetic task: it makes its examples itself, from the run's seed."""
    task: Any = run.data.build() if hasattr(run.data, "build") else None  # type: ignore[attr-defined]
    if task is None:
        raise ConfigError(f"{type(run.data).__qualname__} is neither a file nor a synthetic task")
    wanted: Any = discovery.get("objectives", task.objective)
    if run.task != task.task or not (run.stages or isinstance(run.objective, wanted.Config)):
        name = type(task).__name__
        raise ConfigError(f"{name} is a task of {task.task!r} with the objective {task.objective}; the run has others")
    train, valid, test = (task.examples(name, run.seed) for name in ("train", "valid", "test"))
    return Prepared(sizes=task.sizes, train=train, valid=valid, test=test)


def _divided(run: Run, source: FileSource, whole: Sequences) -> tuple[Sequences, Split]:
    """All sequences, those of a test file at the end, and which of them train, validate and test."""
    test = source.read_test()
    if test is None:
        return whole, split(whole, source.how, source.fractions, seed=source.split_seed)
    if test.kind != whole.kind:
        raise DataError(f"holds {test.kind}, the training file {whole.kind}", file=test.source, mend="Check --test.")
    inputs = None if source.columns is None else source.columns.inputs
    names = [name for name in wanted(whole, inputs) if name != run.target]
    wanted(test, ",".join(names))  # the file that lacks one is named, here and of the target
    asked = [] if inputs == ALL else names
    if run.task == "regress":
        for part in (whole, test):
            Target(name=run.target).of(part)
        asked.append(run.target)
    given = np.arange(len(whole), len(whole) + len(test))
    joined = Sequences.join([whole, test])
    lost = [name for name in asked if name in set(whole.channels) - set(joined.channels)]
    if lost:
        problem = f"{lost[0]!r} is text in one of both files and numbers in the other"
        raise DataError(problem, file=test.source, mend=f"Write it as in {whole.source}, blank where it is missing.")
    return joined, split(joined, "given", source.fractions, seed=source.split_seed, test=given)


def sizes_of(tokenizer: Tokenizer | None, features: Features | None, classes: tuple[str, ...]) -> Sizes:
    """What the data dictate to a model."""
    return Sizes(
        vocabulary=0 if tokenizer is None else tokenizer.vocabulary.size,
        classes=len(classes),
        channels=0 if features is None else features.width,
        values=0 if features is None else features.predicted,
    )


def encoded(part: Sequences, tokenizer: Tokenizer | None, features: Features | None) -> Examples:
    """Every sequence as ids, as scaled values, or as both; values have no end that could be predicted."""
    tokens = None if tokenizer is None else tokenizer.encode(part)
    values = None if features is None else features.of(part)
    closes = part.closes if tokenizer is not None else np.zeros(len(part), bool)
    return Examples(tokens, values=values, opens=part.opens, closes=closes)


def _scaled(source: FileSource, train: Sequences) -> Features | None:
    """Scales of the training part, for values and for the inputs that were asked for."""
    inputs = None if source.columns is None else source.columns.inputs
    if inputs and train.kind == "text":
        mend = "Leave --inputs away, or read the symbols from a column with --event."
        raise DataError("holds text: there is nothing beside each character", file=train.source, mend=mend)
    return Features.fit(train, inputs) if inputs or train.kind == "values" else None


def _fitted(run: Run, train: Sequences) -> Tokenizer | None:
    """The run's tokenizer with the vocabulary of the training part; None for real values."""
    if train.kind == "values":
        return None
    if run.tokenizer is None:
        raise ConfigError(f"a run over {train.kind} needs a tokenizer")
    tokenizer: Tokenizer = run.tokenizer.build()
    tokenizer.fit(train)
    return tokenizer


def _labelled(part: Sequences, name: str, notes: list[str]) -> Sequences:
    """Only the sequences with a label."""
    if part.labels is None:
        raise DataError("has no column of classes", file=part.source, mend="Name it with --label, or use --task next.")
    known = np.array([label is not None for label in part.labels])
    if known.all():
        return part
    notes.append(f"{int((~known).sum())} sequences of the {name} part have no label and are left out")
    return part.select(known)


def _classes(train: Sequences) -> tuple[str, ...]:
    counts = Counter(train.labels or [])
    if len(counts) < 2:
        found = ", ".join(sorted(counts)) or "none"
        raise DataError(
            "the training part holds fewer than two classes",
            file=train.source,
            value=found,
            mend="Check --label, or use --task next.",
        )
    return tuple(sorted(counts))


def _check_whole(run: Run, whole: Sequences, cut: Split) -> None:
    """DataError where there is no end of a sequence of symbols that a number could be told of."""
    if whole.kind == "values":
        mend = "Name the column of the symbols with --event; numbers beside them are read with --inputs."
        raise DataError("holds values: a number is told after symbols", file=whole.source, mend=mend)
    if cut.how == "position":
        chosen = isinstance(run.data, FileSource) and run.data.how == "position"
        many, mend = ("a split by position", "Choose another --split") if chosen else ("too few sequences", "Bring 3")
        problem = f"{many}: the sequences would be cut, and what is told is how they end"
        raise DataError(problem, file=whole.source, mend=f"{mend}, or a test part with --test.")
    Target(name=run.target).of(whole)  # what is missing is counted in all parts, not in the first that lacks it


def _target(run: Run, train: Sequences) -> Target:
    """Unit and scale of what is told, by the training part. DataError where it is an input, too."""
    columns = run.data.columns if isinstance(run.data, FileSource) else None
    inputs = "" if columns is None else columns.inputs or ""
    if run.target in (name.strip() for name in inputs.split(",")):
        problem = f"{run.target!r} is what is predicted (--target): it cannot be an input"
        raise DataError(problem, file=train.source, mend="Leave it out of --inputs.")
    return Target.fit(train, run.target, column=(None if columns is None else columns.label) or "label")


def _examples(part: Sequences, learnt: Learnt) -> Examples:
    """Encoded examples; those of a class that training never saw are left out (they are counted where it matters)."""
    whole, classes = encoded(part, learnt.tokenizer, learnt.features), learnt.classes
    if learnt.target is not None:
        own = learnt.target.of(part)
        told = {LABEL: Ragged(learnt.target.scaled(own.values), own.offsets), OWN: own}
        whole = Examples(whole.tokens, values=whole.values, opens=whole.opens, closes=whole.closes, labels=told)
    if not classes:
        return _kept(whole, whole.lengths > 0)  # not the empty piece of a cut
    number = {name: at for at, name in enumerate(classes)}
    target_N = np.array([number.get(label, -1) for label in part.labels or []], dtype=np.int64)
    return _kept(Examples(whole.tokens, target_N, values=whole.values), target_N >= 0)


def _kept(whole: Examples, which_N: np.ndarray) -> Examples:
    """Some of the examples, numbered anew; nothing is copied where all stay."""
    if which_N.all():
        return whole
    at = np.flatnonzero(which_N)
    return Examples(
        None if whole.tokens is None else whole.tokens.select(at),
        None if whole.targets is None else whole.targets[at],
        values=None if whole.values is None else whole.values.select(at),
        opens=whole.opens[at],
        closes=whole.closes[at],
        labels={name: own.select(at) for name, own in whole.extra.items()},
    )
