"""Parity: after every bit, whether the ones so far are odd.

    bits      1 0 1 1 0 ..          answers   1 1 0 1 1 ..

    training: n is even over 1 .. ``length``      test: n is even over ``length`` + 1 .. ``test_length``

The smallest problem that needs a state which does not fade: one bit, flipped by each 1. A recurrence whose transitions
are diagonal with entries in [0, 1] cannot do it at all lengths; entries in [-1, 1] can. ``scaled(accuracy)`` is the
published measure, (accuracy - 1/2) / (1/2). Scored at training lengths alone, a memory of all short strings would do.
Source: Grazzi et al., "Unlocking state-tracking in linear RNNs through negative eigenvalues", 2024, arXiv:2411.12537,
sections 4 and 5.1 (training to 40, test 40 to 256).
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task
from seqloom.data.synthetic._lengths import divisible, span

ZERO = SPECIALS.count


class Parity(Task):
    """Fair bits and their running parity."""

    objective = "tag"
    crowded = True  # there are few short strings

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        length: int = 40
        """Most bits of training and validation; the fewest are 1."""
        test_length: int = 256
        """Most bits of test examples, which are all longer than training; 0 = exactly ``length``."""

        def __post_init__(self) -> None:
            """Refuse what cannot be divided into parts."""
            divisible("parity", 2, self)

    @property
    def sizes(self) -> Sizes:
        """Specials and the two bits."""
        return Sizes(vocabulary=ZERO + 2)

    @property
    def floor(self) -> float:
        """One in two, whatever the position."""
        return 0.5

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A length, then bits."""
        low, high = span(place.part, self.config.length, self.config.test_length)
        bits = rng.integers(2, size=int(rng.integers(low, high + 1)))
        return Drawn(ZERO + bits, np.ones(len(bits), bool), ZERO + np.cumsum(bits) % 2)

    def oracle(self, example: Example) -> np.ndarray:
        """Count."""
        return ZERO + np.cumsum(example.tokens == ZERO + 1) % 2
