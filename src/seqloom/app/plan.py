"""From a file and a model's name to a run: what is read once, and what each training gets.

Names are resolved in the order recipe, classical model, mixer. A mixer, or a hybrid such as ``s4d*3,attention``, is put
into a language model (task next), an encoder (task classify) or a regression (task regress) of the sizes in
``app.defaults``.
"""

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import Any

from seqloom.app import _horizon, _regress
from seqloom.app.data import source_of
from seqloom.app.defaults import HEADS, Facts, model_of, shape_for
from seqloom.core import discovery
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError, DataError
from seqloom.data.batching import Batching
from seqloom.data.features import value_names
from seqloom.data.sequences import Sequences
from seqloom.data.target import LABEL
from seqloom.models._base import Model
from seqloom.models.classical.median import Median
from seqloom.models.classical.unigram import Unigram
from seqloom.models.classical.white_noise import WhiteNoise
from seqloom.objectives.classify import Classify
from seqloom.objectives.next_token import NextToken
from seqloom.objectives.next_value import NextValue
from seqloom.objectives.regress import Regress
from seqloom.tokenizers import default_tokenizer
from seqloom.tokenizers import get as tokenizer_named
from seqloom.tokenizers._base import Tokenizer
from seqloom.training.budget import Budget, parse
from seqloom.training.prepare import Learnt, Prepared, prepare
from seqloom.training.run import Run, Stopping
from seqloom.training.source import FileSource

TASKS = ("auto", "next", "forecast", "classify", "regress")
TRIVIAL = {"next": "unigram", "values": "white_noise", "forecast": "seasonal_naive", "regress": "median"}
"""The answer that knows no sequence, by what is predicted."""


@dataclass
class Loaded:
    """Data that were read, split and encoded once, for any number of trainings."""

    base: Run
    """The run of the trivial baseline; every other one differs in the model and its sizes."""
    prepared: Prepared
    facts: Facts
    notes: list[str] = field(default_factory=list)
    """Guesses about the file."""

    def run(self, name: str, *, budget: str | Budget = "45s", seed: int = 7) -> Run:
        """The run of a model by its name. ConfigError names the models that there are."""
        parsed = budget if isinstance(budget, Budget) else parse(budget)
        base = replace(self.base, budget=parsed, seed=seed)
        if name in discovery.names("recipes"):
            if base.task == "regress":
                raise ConfigError(f"{name} predicts the next symbol and tells no number: choose a mixer, as gru")
            recipe: Any = discovery.module("recipes", name)
            made: Run = recipe.small()
            return replace(made, data=base.data, tokenizer=base.tokenizer, task=base.task, budget=parsed, seed=seed)
        if name in discovery.names("models/classical"):
            kind: Any = discovery.get("models/classical", name)
            self._check_kind(name, kind.tasks)
            return replace(base, model=_as_far(kind.Config(), base.horizon), seed=0)
        check_mixers(name)
        shape = shape_for(self.facts)
        return replace(
            base,
            model=model_of(name, self.facts, shape),
            batch=shape.batch,
            accumulate=shape.accumulate,
            optimiser=shape.optimiser,
            stopping=Stopping(looks=8, patience=6, examples=500),
        )

    def _check_kind(self, name: str, tasks: tuple[str, ...]) -> None:
        """ConfigError where a classical model of symbols meets real values, or the other way round."""
        regress = self.base.task == "regress"
        if regress != ("regress" in tasks):
            told = "tells no number after every event" if regress else "tells numbers: ask with --target"
            raise ConfigError(f"{name} {told}; there are {', '.join(self.baselines)}")
        values = self.prepared.sizes.values > 0
        if not regress and values != ("values" in tasks):
            held, other = ("real values", "symbols") if values else ("symbols", "real values")
            raise ConfigError(
                f"{name} is a model of {other}, and these data are {held}; there are {', '.join(self.baselines)}"
            )

    @property
    def baselines(self) -> tuple[str, ...]:
        """Classical models that these data can have, the trivial one first."""
        want = "values" if self.prepared.sizes.values else "next"
        want = "regress" if self.base.task == "regress" else want
        trivial = TRIVIAL["forecast" if self.base.horizon else want]
        kinds: list[tuple[str, Any]] = [
            (name, discovery.get("models/classical", name)) for name in discovery.names("models/classical")
        ]
        return tuple(sorted((name for name, kind in kinds if want in kind.tasks), key=lambda name: name != trivial))

    def prepared_for(self, run: Run) -> Prepared:
        """The examples of a run: windows where its batches ask for them."""
        window = run.batch.window if is_neural(run.model) and run.task != "classify" else 0
        if not window:
            return self.prepared
        p = self.prepared
        cut = {name: getattr(p, name).windows(window) for name in ("train", "valid", "test")}
        return replace(p, **cut)


def load_data(
    source: Any,
    *,
    task: str = "auto",
    test: str | None = None,
    head: str = "auto",
    horizon: int = 0,
    target: str | None = None,
    learnt: Learnt | None = None,
) -> Loaded:
    """Read, split and encode.

    Args:
        source: A path, ``sample:NAME``, a FileSource, a frame, lists or arrays.
        task: next, forecast, classify, regress, or auto: forecast with a horizon, regress with a target, classify
            where there are labels.
        test: A file that is the test part.
        head: The kind of distribution that networks give: gaussian, quantiles, or auto: gaussian for real values, and
            quantiles for numbers, which are judged by their medians.
        horizon: Task forecast: how many steps ahead.
        target: Task regress: ``remaining``, or the column whose value at the end is told; None = the label.
        learnt: What was learnt elsewhere, for a model that goes on from there.
    """
    task = _checked(task, horizon, target)
    given, sequences = source_of(source)
    if test is not None:
        given = replace(given, test=str(test))
    guesses: tuple[str, ...] = ()
    if sequences is None:
        given, sequences, guesses = _read(given)
    _check_readable(sequences)
    labelled = sequences.labels is not None
    chosen = "next" if task == "forecast" else task if task != "auto" else "classify" if labelled else "next"
    if horizon and sequences.kind != "values":
        mend = "Name the columns of numbers with --value, or leave --horizon away."
        raise DataError(f"holds {sequences.kind}: a forecast is of real values", file=sequences.source, mend=mend)
    base = _base(given.stamped(sequences), sequences, chosen, None if learnt is None else learnt.tokenizer)
    base = replace(base, horizon=horizon, target=_told(target, given, sequences) if chosen == "regress" else "")
    prepared = prepare(base, sequences, learnt=learnt)
    _check_parts(prepared, sequences.source, chosen)
    guessed = [] if task != "auto" else [f"task {chosen}: {_why(labelled)} (--task overrides)"]
    remarks = _horizon.remarks(sequences, prepared) if horizon else _regress.remarks(prepared)
    notes = list(dict.fromkeys([*guesses, *sequences.notes, *guessed, *remarks]))
    return Loaded(base, prepared, _facts(prepared, chosen, head), notes)


def _checked(task: str, horizon: int, target: str | None) -> str:
    """The task that is meant. ConfigError where there is none, or it does not go with the horizon or the target."""
    if task not in TASKS:
        raise ConfigError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")
    if horizon < 0 or (task == "forecast" and not horizon):
        raise ConfigError("a forecast needs to know how many steps ahead: --horizon 24")
    if horizon and task not in ("auto", "forecast"):
        raise ConfigError(f"a horizon belongs to the task forecast, not to {task}")
    if target is not None and (horizon or task not in ("auto", "regress")):
        raise ConfigError(f"a target belongs to the task regress, not to {'forecast' if horizon else task}")
    if target is not None:
        return "regress"
    return "forecast" if horizon else task


def _told(target: str | None, source: FileSource, sequences: Sequences) -> str:
    """The number that is meant; the label has the name of its column, too."""
    own = (None if source.columns is None else source.columns.label) or "label"
    labelled = target == own and sequences.labels is not None and own not in sequences.channels
    return LABEL if labelled or not target else target


def _as_far(config: Component.Config, horizon: int) -> Component.Config:
    """A model that has a map for every step ahead gets so many."""
    told = horizon and any(item.name == "horizon" for item in fields(config))
    return replace(config, horizon=horizon) if told else config  # type: ignore[call-arg]


def _base(source: FileSource, sequences: Sequences, task: str, tokenizer: Tokenizer | None) -> Run:
    """The run of the trivial baseline."""
    values = sequences.kind == "values"
    config = None
    if not values:
        kind: Any = None if tokenizer is not None else tokenizer_named(default_tokenizer(sequences))
        config = tokenizer.config if tokenizer is not None else kind.Config()
    following = NextValue.Config(predicted=len(value_names(sequences))) if values else NextToken.Config()
    objective = {"classify": Classify.Config(), "regress": Regress.Config()}.get(task, following)
    trivial = Median.Config() if task == "regress" else WhiteNoise.Config() if values else Unigram.Config()
    return Run(
        data=source,
        model=trivial,
        task=task,  # type: ignore[arg-type]
        tokenizer=config,
        objective=objective,
        batch=Batching(tokens=1024),
        seed=0,
    )


def _check_readable(sequences: Sequences) -> None:
    if not len(sequences):
        raise DataError("holds no sequences", file=sequences.source, mend="Check --case, --event or --text.")


def _check_parts(prepared: Prepared, file: str, task: str) -> None:
    """There must be something to learn from and something to test on."""
    if not prepared.train.symbols:
        raise DataError("holds empty sequences alone", file=file, mend="Check that it is the right file.")
    if not len(prepared.test) or (task == "next" and not prepared.test.symbols):
        mend = "Bring more of them, or a file of its own with --test."
        raise DataError("too few sequences: none is left to test on", file=file, mend=mend)


def _facts(prepared: Prepared, task: str, head: str) -> Facts:
    """What the training part says about a good size."""
    train = prepared.train
    if head == "auto":
        head = "quantiles" if task == "regress" else "gaussian"
    if head not in HEADS:
        raise ConfigError(f"there is no head {head!r}; there are {', '.join(HEADS)}")
    return Facts(
        symbols=train.symbols,
        longest=int(train.lengths.max(initial=1)) - 1,
        typical=train.symbols // max(len(train), 1),
        sizes=prepared.sizes,
        task=task,
        head=head,
    )


def is_neural(model: Component.Config) -> bool:
    """True for the config of a network."""
    return issubclass(model.owner, Model)


def check_mixers(text: str) -> None:
    """ConfigError where a name is no recipe, no classical model and no pattern of mixers."""
    known, classical = discovery.names("mixers"), discovery.names("models/classical")
    for piece in text.split(","):
        name, star, times = (part.strip() for part in piece.partition("*"))
        if name in classical:
            raise ConfigError(f"{name} is a whole model, no layer: {text!r} can consist of {', '.join(known)}")
        if name not in known:
            every = sorted({*discovery.names("recipes"), *classical, *known})
            close = difflib.get_close_matches(name.lower(), every, 2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(every)}"
            raise ConfigError(f"there is no model {name!r}; {hint}")
        if star and not (times.isdecimal() and int(times) > 0):
            raise ConfigError(f"{piece.strip()!r}: what follows * is a positive number of layers")


def check_model(name: str) -> None:
    """ConfigError where no model has this name."""
    if name not in discovery.names("recipes") and name not in discovery.names("models/classical"):
        check_mixers(name)


def _read(source: FileSource) -> tuple[FileSource, Sequences, tuple[str, ...]]:
    """Read a file; what was guessed about its columns is kept, so that every later read is the same."""
    from seqloom.data._source import Source
    from seqloom.data.reading import read, sniff
    from seqloom.training.source import located

    place = Source.of("-") if source.path == "-" else located(source.path)
    guess = sniff(place, columns=source.columns, reader=source.reader)
    source = replace(source, columns=guess.columns, reader=guess.reader)
    if isinstance(place, Source):  # standard input can be read once
        return source, read(place, columns=guess.columns, reader=guess.reader), guess.notes
    return source, source.read(), guess.notes


def _why(labelled: bool) -> str:
    return "the sequences have labels" if labelled else "the sequences have no labels"
