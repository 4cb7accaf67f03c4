"""Associative recall: letters with their digits, then one letter: which digit belongs to it?

    a 2 c 4 b 3 c 4 | _ a -> 2          _ is <sep>; only the last symbol counts

    V / 2 letters, each bound to one of V / 2 digits by a map that is drawn anew for every example; N / 2 pairs whose
    letters are drawn with repetition; the query is one of the letters that occurred, all of them equally likely

Source: Fu et al., "Hungry hungry hippos", 2022, arXiv:2212.14052, section 3.1 (V 20, N 20); Ba et al., "Using fast
weights to attend to the recent past", 2016, arXiv:1610.06258, section 4.1.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task

FIRST = SPECIALS.count


class AssociativeRecall(Task):
    """``length`` / 2 pairs, one question."""

    crowded = True  # a small one has few words

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        vocab: int = 20
        """Letters and digits, half of each."""
        length: int = 20
        """Columns of the pairs."""
        test_length: int = 0
        """Columns of the pairs in test examples; 0 = as many as in training."""

        def __post_init__(self) -> None:
            """Refuse halves that are none."""
            for name, number, least in (("vocabulary", self.vocab, 4), ("length", self.length, 2)):
                if number % 2 or number < least:
                    raise ConfigError(f"associative recall needs an even {name} of at least {least}, not {number}")
            if self.test_length % 2 or self.test_length < 0:
                raise ConfigError(f"associative recall is tested at an even length, not {self.test_length}")

    @property
    def sizes(self) -> Sizes:
        """Specials, letters and digits."""
        return Sizes(vocabulary=FIRST + self.config.vocab)

    @property
    def floor(self) -> float:
        """One digit: every map is equally likely."""
        return 2.0 / self.config.vocab

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A map, letters, their digits, the mark, the query and its digit."""
        half, length = self.config.vocab // 2, (self.config.test_length if place.part == "test" else 0)
        pairs = (length or self.config.length) // 2
        digit_of = half + rng.integers(half, size=half)
        letters = rng.integers(half, size=pairs)
        asked = rng.choice(np.unique(letters))
        tokens = np.empty(2 * pairs + 3, np.int64)
        tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2] = FIRST + letters, FIRST + digit_of[letters]
        tokens[-3:] = SPECIALS.sep, FIRST + asked, FIRST + digit_of[asked]
        return Drawn(tokens, np.arange(len(tokens)) == len(tokens) - 1)

    def oracle(self, example: Example) -> np.ndarray:
        """The digit behind the same letter."""
        letters, digits = example.tokens[:-3:2], example.tokens[1:-3:2]
        return digits[letters == example.tokens[-2]][:1]
