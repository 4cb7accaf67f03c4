"""How good a model is on the test part, and how good the trivial answer is.

    next       bits per symbol = - sum log2 p(x_t | x_<t) / number of symbols, end symbols included
               bits per value likewise, of densities of values divided by their standard deviation in training;
               right = inside the central 80 %
    forecast   error of the next H values, from origins that roll through the test part, in units of the error of
               repeating the last season (``app/_horizon.py``); right = inside the central 80 %
    classify   bits per sequence = - log2 p(true class); accuracy
    regress    mean absolute error of the number after every event, in its own unit (``app/_regress.py``); right =
               inside the central 80 %

Every figure is kept by sequence, so that differences can be judged against the noise of the test part.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from seqloom.app import _by_prefix, _horizon, _regress
from seqloom.app._engines import BITS, Blueprint, Engine, wrapped
from seqloom.app._values import ValueEngine
from seqloom.app.plan import TRIVIAL
from seqloom.core.errors import ConfigError, DataError
from seqloom.core.specials import SPECIALS
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.target import UNITS
from seqloom.models import classical
from seqloom.training.prepare import OWN, Prepared, encoded

MEASURES = {
    "next": "bits_per_symbol",
    "values": "bits_per_value",
    "forecast": "mase",
    "classify": "bits_per_class",
    "regress": "mae",
}
"""What decides, by what is predicted."""
FEW, PIECES = 20, 100
LEAST = 2.0**-20
"""Probability that a class is given at least when it is judged: one that training never saw costs 20 bits."""


@dataclass(frozen=True)
class Judgement:
    """Figures of one model on one test part, by unit: a test sequence, a piece of it where there are few, an origin."""

    task: str
    bits_N: np.ndarray
    """Bits of each unit, scaled errors of a forecast, or errors of a number in its own unit."""
    count_N: np.ndarray
    """Symbols of each (1 where classes are told)."""
    hits_N: np.ndarray
    """Of these, how many were the likeliest; NaN where nobody looked."""
    each: Ragged | None = None
    """Bits of every symbol by test sequence, where it was judged just now."""
    further: dict[str, np.ndarray] = field(default_factory=dict)
    """Sums of measures that do not decide, by unit (of squares where the root of the mean is told)."""
    by_prefix: _by_prefix.Kept = field(default_factory=dict)
    """What decides, and how often it was right, by how much had been read."""

    @property
    def bits(self) -> float:
        """Bits per symbol, or per class; the mean absolute scaled error of a forecast."""
        return float(self.bits_N.sum() / max(self.count_N.sum(), 1))

    @property
    def accuracy(self) -> float:
        """Share of symbols or classes that were the likeliest."""
        seen_N = ~np.isnan(self.hits_N)
        return float(self.hits_N[seen_N].sum() / max(self.count_N[seen_N].sum(), 1))

    def figures(self) -> dict[str, float]:
        """By name, the measure that decides first."""
        return {
            MEASURES[self.task]: self.bits,
            "accuracy": self.accuracy,
            **{name: self._figure(name) for name in self.further},
            "units": len(self.bits_N),
            "counted": self.counted,
        }

    def _figure(self, name: str) -> float:
        """A measure that does not decide; of squares the root is told."""
        mean = float(self.further[name].sum() / max(self.count_N.sum(), 1))
        return mean**0.5 if name == "rmse" else mean

    @property
    def counted(self) -> int:
        """Symbols or classes that were judged."""
        return int(self.count_N.sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """As it is saved; the bits of every symbol are not."""
        own = {"bits": self.bits_N, "count": self.count_N, "hits": self.hits_N}
        return {**own, **self.further, **_by_prefix.arrays(self.by_prefix)}

    @classmethod
    def of(cls, task: str, arrays: Mapping[str, np.ndarray]) -> Self:
        """Take back what ``arrays`` gave."""
        own = dict(arrays)
        kept = _by_prefix.taken(own)
        return cls(task, own.pop("bits"), own.pop("count"), own.pop("hits"), further=own, by_prefix=kept)


def in_words(figure: float, predicts: str, unit: str = "") -> str:
    """What decides, as it stands in a sentence; ``unit`` of a number that is told."""
    if predicts not in ("forecast", "regress"):
        return f"{figure:.3f} {MEASURES[predicts].replace('_', ' ')}"
    if predicts == "forecast":
        return f"a mean absolute scaled error of {figure:.3f}"
    return f"a mean absolute error of {figure:.3f} " + (unit if unit in UNITS else f"({unit})")


def judge(engine: Engine, data: Prepared) -> Judgement:
    """Judge a model on the test part."""
    part = data.parts["test"]
    if not len(part):
        raise DataError("leaves nothing to test on", file=part.source, mend="Give a test file with --test.")
    examples = encoded(part, data.tokenizer, data.features)
    got = judged(engine, part, examples)
    return _forecasts(engine, data, got.each) if data.horizon and got.each is not None else got


def judged(engine: Engine, part: Sequences, examples: Examples) -> Judgement:
    """Judge what is said of any sequences, but forecasts of several steps; ``examples`` are the same, encoded."""
    b = engine.blueprint
    if b.task == "regress":
        return _numbers(engine, part, examples)
    if b.task == "classify":
        return judged_classes(np.exp(engine.classify(examples)), b.classes, part.labels or [], part.lengths)
    log_p, hits = engine.score(examples)
    offsets = units(log_p.offsets - log_p.offsets[0])
    bits, right = log_p.flat * -BITS, hits.flat
    each = Ragged(bits, log_p.offsets - log_p.offsets[0])
    kept = _by_prefix.of_steps(examples, each, right, offsets, max(b.sizes.values, 1))
    sums, right_N = _sums(bits, offsets), _sums(right, offsets)
    return Judgement("values" if b.sizes.values else "next", sums, np.diff(offsets), right_N, each, by_prefix=kept)


def predicted(data: Prepared) -> str:
    """What is predicted: symbols (next), the next value (values), several (forecast), a class, a number (regress)."""
    if data.target is not None:
        return "regress"
    values = "forecast" if data.horizon else "values"
    return "classify" if data.classes else values if data.sizes.values else "next"


def _forecasts(engine: Engine, data: Prepared, each: Ragged) -> Judgement:
    """Judge what a model of values says of the next steps; ``each``: bits of every value, for later data."""
    if not isinstance(engine, ValueEngine):
        raise ConfigError("a forecast is of real values, and this model predicts symbols")
    sums, count_N, kept = _horizon.judged(engine, data)
    error_N, inside_N = sums.pop("mase"), sums.pop("inside")
    return Judgement("forecast", error_N, count_N, inside_N, each, sums, kept)


def _numbers(engine: Engine, part: Sequences, examples: Examples) -> Judgement:
    """Judge what is told after every event, in the number's own unit."""
    sums, count_N, kept = _regress.judged(engine, part, examples)
    error_N, inside_N = sums.pop("mae"), sums.pop("inside")
    return Judgement("regress", error_N, count_N, inside_N, further=sums, by_prefix=kept)


def units(offsets: np.ndarray) -> np.ndarray:
    """Borders of what is judged as one: sequences, or where there are few of them, pieces of at least 50 symbols.

    One long test sequence (a stream, a genome) says how much a difference varies along it, if it is cut.
    """
    if len(offsets) - 1 >= FEW or not offsets[-1]:
        return offsets
    size = max(50, int(offsets[-1]) // PIECES)
    inner = [np.arange(begin, end, size) for begin, end in itertools.pairwise(offsets.tolist())]
    return np.append(np.concatenate(inner), offsets[-1])


def trivial(data: Prepared) -> Judgement:
    """The baseline that knows no sequence: shares of the classes or symbols, the last season, the median."""
    if data.classes:
        share_C = np.bincount(np.asarray(data.train.targets), minlength=len(data.classes)) / len(data.train)
        part = data.parts["test"]
        labels = part.labels or []
        return judged_classes(np.tile(share_C, (len(labels), 1)), data.classes, labels, part.lengths)
    train = data.train.whole()  # what is cut into windows is counted once all the same
    kind: Any = classical.get(TRIVIAL[predicted(data)])
    model = kind(data.sizes)
    if data.target is not None:
        model.fit(data.train.tokens, data.train.extra[OWN])
    elif data.sizes.values:
        model.fit(train.values, opens=train.opens)
    else:
        model.fit(train.tokens, opens=train.opens, closes=train.closes)
    task = "regress" if data.target is not None else "next"
    blueprint = Blueprint(model=model.config, task=task, sizes=data.sizes, target=data.target)
    return judge(wrapped(blueprint, model), data)


def judged_classes(
    p_NC: np.ndarray, classes: tuple[str, ...], labels: list[str], length_N: np.ndarray | None = None
) -> Judgement:
    """Judge probabilities of classes; a label that training never saw is always missed."""
    number = {name: at for at, name in enumerate(classes)}
    at_N = np.array([number.get(label, -1) for label in labels], np.int64)
    row_N = np.arange(len(at_N))
    p_N = np.where(at_N >= 0, p_NC[row_N, at_N], 0.0)
    hits_N = ((p_NC.argmax(1) == at_N) if len(p_NC) else np.zeros(0, bool)).astype(np.float64)
    bits_N = -np.log2(np.maximum(p_N, LEAST))
    kept = {} if length_N is None else _by_prefix.of_sequences(length_N, bits_N, hits_N)
    return Judgement("classify", bits_N, np.ones(len(at_N), np.int64), hits_N, by_prefix=kept)


def unknown_share(data: Prepared) -> float:
    """Share of test symbols that training never saw."""
    if data.tokenizer is None or not data.parts:
        return 0.0
    flat = data.tokenizer.encode(data.parts["test"]).flat
    return float((flat == SPECIALS.unk).mean()) if len(flat) else 0.0


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    unit_L = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(unit_L, np.asarray(values, np.float64), len(offsets) - 1)
