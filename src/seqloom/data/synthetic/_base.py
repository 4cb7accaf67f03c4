"""The one interface of every synthetic task.

    task = SelectiveCopy.Config(keep=4).build()
    task.examples("train", seed)            Examples, each a pure function of (task, seed, split, index)
    task.oracle(example)                    the best possible prediction of every scored position
    task.floor                              accuracy of the best guess that has not read the example

Positions that count carry the label ``weight`` 1, all others 0.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.rng import generator
from seqloom.core.sizes import Sizes
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged

Part = Literal["train", "valid", "test"]


class Drawn(NamedTuple):
    """One example as a task draws it."""

    tokens: np.ndarray
    """Ids, those to be predicted included."""
    scored: np.ndarray
    """True at the positions whose prediction counts."""


class Task(Component):
    """Base of every task. Subclasses write ``sizes``, ``draw``, ``oracle`` and ``floor``."""

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
        """Accuracy on scored positions of the best prediction that does not look at the example's context."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Drawn:
        """One example."""

    @abstractmethod
    def oracle(self, example: Example) -> np.ndarray:
        """The best prediction of each scored position, in order, from what stands before it alone."""

    def examples(self, part: Part, seed: int = 0, start: int = 0, stop: int | None = None) -> Examples:
        """Examples ``start`` to ``stop`` of a part (all of it by default; beyond its end there are always more)."""
        if part not in ("train", "valid", "test"):
            raise ConfigError(f"a task has the parts train, valid and test, not {part!r}")
        last = getattr(self.config, part) if stop is None else stop
        name = type(self).__name__
        drawn = [self.draw(generator(seed, name, part, index)) for index in range(start, last)]
        tokens = Ragged.of([item.tokens for item in drawn])
        weight = Ragged(Ragged.of([item.scored for item in drawn], np.float32).values, tokens.offsets)
        flags = {"opens": np.full(len(drawn), self.opens), "closes": np.full(len(drawn), self.closes)}
        made = Examples(tokens, labels={"weight": weight}, **flags)
        made.numbers = np.arange(start, start + len(drawn))
        return made
