"""From a run's data to examples: read, split, learn vocabulary and scales on the training part alone, encode.

Nothing is learnt from the validation and the test part: not the vocabulary, not the scales, not the classes.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError, DataError
from seqloom.core.sizes import Sizes
from seqloom.data._mapped import LARGE, give_back
from seqloom.data.examples import Examples
from seqloom.data.features import Features, wanted
from seqloom.data.sequences import Sequences
from seqloom.data.splits import LeakageReport, Split, leakage, split
from seqloom.models._base import Model
from seqloom.tokenizers._base import Tokenizer
from seqloom.training.run import Run
from seqloom.training.source import FileSource

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Learnt:
    """What is learnt from the training part before any model sees it."""

    tokenizer: Tokenizer | None = None
    """None where the sequences are real values."""
    features: Features | None = None
    """How values and inputs are scaled, where there are any."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""


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
    whole, cut = _divided(run.data, whole)
    parts, notes = dict(zip(PARTS, cut.parts(whole), strict=True)), list(cut.notes)
    if run.task == "classify":
        parts = {name: _labelled(part, name, notes) for name, part in parts.items()}
    if not len(parts["train"]):
        raise DataError("holds nothing to learn from", file=whole.source, mend="It needs at least one sequence.")
    if learnt is None:
        train = parts["train"]
        classes = _classes(train) if run.task == "classify" else ()
        learnt = Learnt(_fitted(run, train), _scaled(run.data, train), classes)
    tokenizer, features, classes = learnt.tokenizer, learnt.features, learnt.classes
    made = {name: _examples(part, tokenizer, features, classes) for name, part in parts.items()}
    window = run.batch.window if run.task == "next" and issubclass(run.model.owner, Model) else 0
    if window:
        made = {name: examples.windows(window) for name, examples in made.items()}
    report = leakage(whole, cut)
    if whole.table.nbytes >= LARGE:
        give_back()
    return Prepared(
        sizes=sizes_of(tokenizer, features, classes),
        **made,
        tokenizer=tokenizer,
        features=features,
        classes=classes,
        notes=notes,
        parts=parts,
        split=cut,
        leakage=report,
        horizon=run.horizon,
    )


def _made(run: Run) -> Prepared:
    """The data of a synthetic task: it makes its examples itself, from the run's seed."""
    task: Any = run.data.build() if hasattr(run.data, "build") else None  # type: ignore[attr-defined]
    if task is None:
        raise ConfigError(f"{type(run.data).__qualname__} is neither a file nor a synthetic task")
    train, valid, test = (task.examples(name, run.seed) for name in ("train", "valid", "test"))
    return Prepared(sizes=task.sizes, train=train, valid=valid, test=test)


def _divided(source: FileSource, whole: Sequences) -> tuple[Sequences, Split]:
    """All sequences, those of a test file at the end, and which of them train, validate and test."""
    test = source.read_test()
    if test is None:
        return whole, split(whole, source.how, source.fractions, seed=source.split_seed)
    if test.kind != whole.kind:
        raise DataError(f"holds {test.kind}, the training file {whole.kind}", file=test.source, mend="Check --test.")
    inputs = None if source.columns is None else source.columns.inputs
    wanted(test, ",".join(wanted(whole, inputs)))  # the file that lacks one is named
    given = np.arange(len(whole), len(whole) + len(test))
    joined = Sequences.join([whole, test])
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


def _examples(
    part: Sequences, tokenizer: Tokenizer | None, features: Features | None, classes: tuple[str, ...]
) -> Examples:
    """Encoded examples; those of a class that training never saw are left out (they are counted where it matters)."""
    whole = encoded(part, tokenizer, features)
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
    )
