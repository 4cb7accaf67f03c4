"""The one interface of every synthetic task.

    task = SelectiveCopy.Config(keep=4).build()
    task.examples("train", seed)            Examples, each a pure function of (task, seed, part, index)
    task.oracle(example)                    the best possible prediction of everything that is asked
    task.answers(example)                   what is right; accuracy is the share in which both agree
    task.floor                              accuracy of the best guess that has not read the example

What is asked, and which objective learns it (a name on the shelf ``objectives``; nothing here imports it):

    objective     task        model        asked of an example
    next_token    next        CausalLM     the symbols with the label ``weight`` 1, each from those before it
    tag           next        CausalLM     the label ``answer`` where ``weight`` is 1, from the symbols up to there
    classify      classify    Encoder      its ``target``, one of ``sizes.classes``

A test part of other lengths than training is a field of the Config (``test_length``), so that a length is as
reproducible as everything else. Where examples are so few that the parts would share some, a task is ``crowded``: a
digest of the symbols decides which part an example may be in, and one that belongs elsewhere is drawn again.
"""

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.rng import generator
from seqloom.core.sizes import Sizes
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged

Part = Literal["train", "valid", "test"]

_SHARES = ("train", "train", "train", "train", "train", "train", "valid", "test")  # of the digests of a crowded task
_TRIES = 10_000  # a part that holds 1/8 of all examples is missed as often with a chance below 1e-500


class Place(NamedTuple):
    """Which example is drawn."""

    part: Part
    index: int
    """Its number in the part."""


class Drawn(NamedTuple):
    """One example as a task draws it."""

    tokens: np.ndarray | None
    """Ids, those to be predicted included; None where there are only values."""
    scored: np.ndarray | None = None
    """True at the positions whose prediction counts; None where the whole is classified."""
    answers: np.ndarray | None = None
    """Ids of what is asked at every position, where that is not the next symbol."""
    target: int | None = None
    """The class of the whole."""
    values: np.ndarray | None = None
    """Real channels (T, C) instead of symbols."""


class Task(Component):
    """Base of every task. Subclasses write ``sizes``, ``draw``, ``oracle`` and ``floor``."""

    task: ClassVar[Literal["next", "classify"]] = "next"
    """What a run over it is asked: ``Run.task``."""
    objective: ClassVar[Literal["next_token", "tag", "classify"]] = "next_token"
    """Name of the objective that learns it: ``Run.objective``."""
    crowded: bool = False
    """True where the parts would share examples if nothing kept them apart."""
    found: bool = False
    """True where examples are found in a data set, not drawn: there are only so many, and the seed changes nothing."""
    opens: bool = False
    """True where a bos stands before an example; tasks give everything themselves unless they say otherwise."""
    closes: bool = False
    """True where the end is to be predicted, too."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Sizes of the parts."""

        train: int = 16_000
        """Training examples."""
        valid: int = 500
        """Validation examples."""
        test: int = 1_000
        """Test examples."""

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config: Any = config if config is not None else type(self).Config()

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """What the task dictates to a model."""

    @property
    @abstractmethod
    def floor(self) -> float:
        """Accuracy, on the test part, of the best prediction that does not look at the example's context."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """One example; only what is not random looks at the number."""

    @abstractmethod
    def oracle(self, example: Example) -> np.ndarray:
        """The best prediction of everything that is asked, in order, each from what stands before it alone."""

    def answers(self, example: Example) -> np.ndarray:
        """What is right, in the order of ``oracle``."""
        if self.objective == "classify":
            return np.array([example.target])
        asked = example.labels["answer"] if self.objective == "tag" else example.tokens
        return asked[example.labels["weight"] == 1]

    def scaled(self, accuracy: float) -> float:
        """Accuracy with the floor at 0 and perfection at 1, as state tracking is reported."""
        return (accuracy - self.floor) / (1.0 - self.floor)

    def examples(self, part: Part, seed: int = 0, start: int = 0, stop: int | None = None) -> Examples:
        """Examples ``start`` to ``stop`` of a part (all of it by default; what is drawn has no end)."""
        if part not in get_args(Part):
            raise ConfigError(f"a task has the parts train, valid and test, not {part!r}")
        last = getattr(self.config, part) if stop is None else stop
        drawn = [self._drawn(seed, Place(part, index)) for index in range(start, last)]
        made = self._gathered(drawn)
        made.numbers = np.arange(start, start + len(drawn))
        return made

    def _drawn(self, seed: int, place: Place) -> Drawn:
        rng = generator(seed, type(self).__name__, place.part, place.index)
        if not self.crowded:
            return self.draw(rng, place)
        for _ in range(_TRIES):
            drawn = self.draw(rng, place)
            if drawn.tokens is not None and _home(drawn.tokens) == place.part:
                return drawn
        raise ConfigError(
            f"{type(self).__name__} is too small to be divided into parts: no example is left for {place.part}"
        )

    def _gathered(self, drawn: list[Drawn]) -> Examples:
        """Flat arrays of what was drawn."""
        labels: dict[str, Ragged] = {}
        if self.objective != "classify":
            labels["weight"] = Ragged.of([item.scored for item in drawn], np.float32)
        if self.objective == "tag":
            labels["answer"] = Ragged.of([item.answers for item in drawn])
        channels = self.sizes.channels
        return Examples(
            None if channels else Ragged.of([item.tokens for item in drawn]),
            [item.target for item in drawn] if self.objective == "classify" else None,
            values=_values([item.values for item in drawn], channels) if channels else None,
            labels=labels,
            opens=np.full(len(drawn), self.opens),
            closes=np.full(len(drawn), self.closes),
        )


def _home(tokens: np.ndarray) -> str:
    """The one part that may hold these symbols."""
    digest = hashlib.blake2b(tokens.astype("<i4").tobytes(), digest_size=1, person=b"seqloom.part").digest()
    return _SHARES[digest[0] % len(_SHARES)]


def _values(arrays: list[Any], channels: int) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays], dtype=np.int64)])
    return Ragged(np.concatenate([np.zeros((0, channels), np.float32), *arrays]), offsets)
