"""Delayed copying, also known as copy memory: M symbols, a long blank, a go, and the symbols again.

    read      b d a | _ _ _ _ _ _ | > | _ _          M symbols, T - 1 blanks, the go <sep>, M blanks: T + 2 M columns
    answer    _ _ _ | _ _ _ _ _ _ | _   ..           T + M blanks, then the M symbols

The answers are no input: between the symbols and their repetition, everything has to be carried by the state, over
the same distance for every symbol. Whoever remembers nothing still knows where the blanks are and pays ln K for each
of the M symbols: M ln K / (T + 2 M) nats a column (K = 8: the published baseline), which is ``floor_nll``.
Source: Arjovsky et al., "Unitary evolution recurrent neural networks", 2015, arXiv:1511.06464, section 4.1; Hochreiter
and Schmidhuber, "Long short-term memory", 1997.
"""

import math
from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Part, Place, Task

BLANK = SPECIALS.count
FIRST = BLANK + 1


class DelayedCopy(Task):
    """``keep`` symbols over ``delay`` columns."""

    objective = "tag"
    crowded = True  # a few symbols make few words

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        vocab: int = 8
        """Symbols K; the blank is one more."""
        keep: int = 10
        """Symbols M that are repeated."""
        delay: int = 50
        """Columns T between the last symbol and the first repetition, the go included."""
        test_delay: int = 0
        """The same of test examples; 0 = as in training."""
        blanks: bool = False
        """Score every column, blanks included, as the published cross-entropy does; accuracy then hardly tells."""

        def __post_init__(self) -> None:
            """Refuse what has nothing to repeat, or no go."""
            if self.vocab < 2 or self.keep < 1 or min(self.delay, self.test_delay or self.delay) < 1:
                raise ConfigError(
                    f"delayed copying needs 2 symbols, 1 to keep and a delay of 1, not {self.vocab}, {self.keep} and "
                    f"{min(self.delay, self.test_delay or self.delay)}"
                )

        def gap(self, part: Part) -> int:
            """The delay of a part."""
            return (self.test_delay if part == "test" else 0) or self.delay

    @property
    def sizes(self) -> Sizes:
        """Specials, the blank and the symbols."""
        return Sizes(vocabulary=FIRST + self.config.vocab)

    @property
    def floor(self) -> float:
        """One symbol in ``vocab``; with ``blanks``, all of those are known too."""
        return 1.0 - self._unknown * (1.0 - 1.0 / self.config.vocab)

    @property
    def floor_nll(self) -> float:
        """Nats a scored column of the best prediction without memory."""
        return self._unknown * math.log(self.config.vocab)

    @property
    def _unknown(self) -> float:
        """Share of the scored columns that nobody knows without memory."""
        keep = self.config.keep
        return keep / (self.config.gap("test") + 2 * keep) if self.config.blanks else 1.0

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """Symbols with repetition."""
        keep, delay = self.config.keep, self.config.gap(place.part)
        symbols = FIRST + rng.integers(self.config.vocab, size=keep)
        tokens, answers = (np.full(delay + 2 * keep, BLANK) for _ in range(2))
        tokens[:keep], tokens[keep + delay - 1], answers[-keep:] = symbols, SPECIALS.sep, symbols
        scored = np.full(len(tokens), self.config.blanks)
        scored[-keep:] = True
        return Drawn(tokens, scored, answers)

    def oracle(self, example: Example) -> np.ndarray:
        """Blanks up to the go, then the symbols one by one."""
        keep, went = self.config.keep, np.cumsum(example.tokens == SPECIALS.sep)
        turn = np.cumsum(went) - 2  # the go itself still answers with a blank
        answers = np.where(turn >= 0, example.tokens[:keep][np.clip(turn, 0, keep - 1)], BLANK)
        return answers[example.labels["weight"] == 1]
