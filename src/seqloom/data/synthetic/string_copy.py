"""String copying: read a string, then write it again, and longer strings than training ever held.

    <bos> x1 x2 .. xn <sep> x1 x2 .. xn          the symbols behind <sep> count

    training: n is even over 1 .. ``length``      test: n is ``test_length``

The copy is read while it is written, so attention finds each next symbol by its predecessors; a state of fixed size has
to hold n log2 V bits, and fails beyond that however it was trained: plot accuracy against log2 of the states.
Source: Jelassi et al., "Repeat after me: transformers are better than state space models at copying", 2024,
arXiv:2402.01032, section 3.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task

FIRST = SPECIALS.count


class StringCopy(Task):
    """Strings of up to ``length`` symbols, each drawn evenly and independently."""

    crowded = True  # there are few short strings

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        vocab: int = 26
        """Symbols V."""
        length: int = 20
        """The longest string of training and validation; the shortest has one symbol."""
        test_length: int = 0
        """The length of every test string; 0 = ``length``."""

        def __post_init__(self) -> None:
            """Refuse what cannot be copied, and what cannot be divided."""
            if self.vocab < 2 or self.length < 1 or self.test_length < 0:
                raise ConfigError(
                    f"strings need 2 symbols and a length of 1, not {self.vocab} and {self.length} ({self.test_length})"
                )
            if self.vocab ** (self.test_length or self.length) < 8 * self.test:
                raise ConfigError(
                    f"{self.vocab} symbols make too few strings of {self.test_length or self.length} for {self.test} "
                    "test examples that training never saw"
                )

    @property
    def sizes(self) -> Sizes:
        """Specials and the symbols."""
        return Sizes(vocabulary=FIRST + self.config.vocab)

    @property
    def floor(self) -> float:
        """One symbol in V."""
        return 1.0 / self.config.vocab

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A length, then symbols."""
        longest = self.config.length
        size = (self.config.test_length or longest) if place.part == "test" else int(rng.integers(1, longest + 1))
        symbols = FIRST + rng.integers(self.config.vocab, size=size)
        tokens = np.concatenate([[SPECIALS.bos], symbols, [SPECIALS.sep], symbols])
        return Drawn(tokens, np.arange(len(tokens)) > size + 1)

    def oracle(self, example: Example) -> np.ndarray:
        """The symbols between <bos> and <sep>."""
        return example.tokens[1 : int(np.argmax(example.tokens == SPECIALS.sep))]
