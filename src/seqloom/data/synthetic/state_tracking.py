"""State tracking: after every symbol, the state of a small machine: a product of permutations, or a sum modulo 5.

    s3, a5, s5    symbols are permutations x_t of 3 or 5 things    answer    p_t = x_t after p_{t-1}, p_0 the identity
    mod5          3 + 4 * 2 - 1 ..    answer, at every digit: the value so far modulo 5, products before sums

    training: n is even over 1 .. ``length``      test: n is even over ``length`` + 1 .. ``test_length``

Permutations are drawn evenly from the whole group and numbered in alphabetical order, so a product is as likely to be
any element. S3 can be solved (as any solvable group can) by a few parallel sums; A5 and S5 are not solvable: a constant
number of layers of attention or of a diagonal recurrence cannot track them at all lengths, as far as is known. In mod5
digits are even over 0 .. 4 and operators over + - *; n counts digits.
Source: Merrill et al., "The illusion of state in state-space models", 2024, arXiv:2404.08819, section 5; Grazzi et al.,
2024, arXiv:2411.12537, section 5; Deletang et al., "Neural networks and the Chomsky hierarchy", 2022, arXiv:2207.02098,
appendix A (modular arithmetic).
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Literal

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task
from seqloom.data.synthetic._lengths import divisible, span

FIRST = SPECIALS.count
MODULUS = 5
PLUS, MINUS, TIMES = range(MODULUS, MODULUS + 3)


class StateTracking(Task):
    """Words over a group or over digits and operators, with the state after every symbol."""

    objective = "tag"
    crowded = True  # there are few short words

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        machine: Literal["s3", "a5", "s5", "mod5"] = "s3"
        """All permutations of 3 or 5 things, the even ones of 5, or arithmetic modulo 5 without brackets."""
        length: int = 20
        """Most permutations, or digits, of training and validation; the fewest are 1."""
        test_length: int = 80
        """Most of test examples, which are all longer than training; 0 = exactly ``length``."""

        def __post_init__(self) -> None:
            """Refuse what cannot be divided into parts."""
            divisible("state tracking", MODULUS if self.machine == "mod5" else len(group(self.machine)), self)

    @property
    def sizes(self) -> Sizes:
        """Specials and the symbols; a state is answered with the symbol of the same permutation or digit."""
        machine = self.config.machine
        return Sizes(vocabulary=FIRST + (TIMES + 1 if machine == "mod5" else len(group(machine))))

    @property
    def floor(self) -> float:
        """One element of the group; of mod5, 0 is somewhat more likely than the rest, since products are."""
        if self.config.machine != "mod5":
            return 1.0 / len(group(self.config.machine))
        low, high = span("test", self.config.length, self.config.test_length)
        zero_T = _zero(high)
        long_T = np.array([sum(1 for n in range(low, high + 1) if n > t) for t in range(high)])
        return float((zero_T * long_T).sum() / long_T.sum())

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """A length, then symbols."""
        low, high = span(place.part, self.config.length, self.config.test_length)
        count = int(rng.integers(low, high + 1))
        if self.config.machine != "mod5":
            word = rng.integers(len(group(self.config.machine)), size=count)
            return Drawn(FIRST + word, np.ones(count, bool), FIRST + _products(self.config.machine, word))
        word = np.empty(2 * count - 1, np.int64)
        word[0::2], word[1::2] = rng.integers(MODULUS, size=count), PLUS + rng.integers(3, size=count - 1)
        return Drawn(FIRST + word, np.arange(len(word)) % 2 == 0, FIRST + _values(word))

    def oracle(self, example: Example) -> np.ndarray:
        """Run the machine."""
        word = example.tokens.astype(np.int64) - FIRST
        if self.config.machine == "mod5":
            return FIRST + _values(word)[0::2]
        return FIRST + _products(self.config.machine, word)


@cache
def group(name: str) -> tuple[tuple[int, ...], ...]:
    """The permutations of ``s3``, ``a5`` or ``s5`` in alphabetical order: p sends i to p[i]."""
    things = permutations(range(int(name[1])))
    return tuple(p for p in things if name[0] == "s" or _even(p))


def _even(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for i, a in enumerate(permutation) for b in permutation[i + 1 :]) % 2 == 0


@cache
def _table(name: str) -> np.ndarray:
    """Number of ``after`` composed with ``first``, at [after, first]."""
    number = {element: at for at, element in enumerate(group(name))}
    return np.array([[number[tuple(after[i] for i in first)] for first in group(name)] for after in group(name)])


def _products(name: str, word: np.ndarray) -> np.ndarray:
    """The product of every prefix."""
    table, state, states = _table(name), 0, []  # the identity comes first in the alphabet
    for element in word:
        state = table[element, state]
        states.append(state)
    return np.array(states, np.int64)


def _values(word: np.ndarray) -> np.ndarray:
    """The value of the expression up to every symbol; at an operator, that of what stands before it."""
    values, total, product = np.empty(len(word), np.int64), 0, 0
    for at, symbol in enumerate(word.tolist()):
        if at % 2 == 0:
            last = word[at - 1] if at else PLUS
            if last == TIMES:
                product *= symbol
            else:
                total, product = total + product, symbol if last == PLUS else -symbol
        values[at] = (total + product) % MODULUS
    return values


def _zero(count: int) -> np.ndarray:
    """Chance that the value is 0 after each of ``count`` digits: exact, over all states (sum, open product)."""
    chance_SP, zero_T = np.zeros((MODULUS, MODULUS)), np.empty(count)
    chance_SP[0] = 1.0 / MODULUS
    for t in range(count):
        zero_T[t] = sum(chance_SP[-p % MODULUS, p] for p in range(MODULUS))
        after_SP = np.zeros_like(chance_SP)
        for s, p in np.ndindex(chance_SP.shape):
            each = chance_SP[s, p] / (3 * MODULUS)
            after_SP[(s + p) % MODULUS] += 2 * each  # + and - alike: the digit is even over 0 .. 4 with either sign
            for digit in range(MODULUS):
                after_SP[s, p * digit % MODULUS] += each
        chance_SP = after_SP
    return zero_T
