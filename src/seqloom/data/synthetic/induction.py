"""Induction: a mark stands somewhere among random symbols; when it comes again, repeat what followed it.

    c a _ d | d b a c _ -> d            _ is the mark <sep>; only the last symbol counts

    N columns: N - 1 symbols of the V - 1 ordinary ones with the mark at a random place but the last two, then the mark

An attention head that looks one step behind its match, or a state that opens its gate once, does it at any length.
The mark is one of the V symbols, as in the papers: guessing is right one time in V - 1.
Source: Fu et al., "Hungry hungry hippos", 2022, arXiv:2212.14052, section 3.1 (V 20, N 30); Gu and Dao, "Mamba", 2023,
arXiv:2312.00752, section 4.1.2 (V 16, N 256, tested at 2^6 to 2^20).
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task

FIRST = SPECIALS.count


class Induction(Task):
    """One match, one answer at the end of ``length`` columns."""

    crowded = True  # a small one has few words

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        vocab: int = 20
        """Symbols V, the mark included."""
        length: int = 30
        """Columns N that are read, both marks included."""
        test_length: int = 0
        """Columns of test examples; 0 = as many as in training."""

        def __post_init__(self) -> None:
            """Refuse what has no room for mark, symbol, mark."""
            if self.vocab < 3 or min(self.length, self.test_length or self.length) < 3:
                raise ConfigError(
                    f"induction needs 3 symbols and 3 columns, not {self.vocab} and {self.test_length or self.length}"
                )

    @property
    def sizes(self) -> Sizes:
        """Specials, the mark among them, and the ordinary symbols."""
        return Sizes(vocabulary=FIRST + self.config.vocab - 1)

    @property
    def floor(self) -> float:
        """One ordinary symbol: they are drawn evenly."""
        return 1.0 / (self.config.vocab - 1)

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """Symbols, the mark over one of them, the mark again, the answer."""
        length = (self.config.test_length if place.part == "test" else 0) or self.config.length
        tokens = FIRST + rng.integers(self.config.vocab - 1, size=length + 1)
        at = int(rng.integers(length - 2))
        tokens[at] = tokens[length - 1] = SPECIALS.sep
        tokens[length] = tokens[at + 1]
        return Drawn(tokens, np.arange(length + 1) == length)

    def oracle(self, example: Example) -> np.ndarray:
        """What follows the first mark."""
        return example.tokens[1:][example.tokens[:-1] == SPECIALS.sep][:1]
