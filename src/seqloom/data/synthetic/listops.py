"""ListOps: the value of a nested list of operators and digits.

    [MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]  ->  5        MED rounds the mean of the two middle ones down

    node      an operator with chance 1/4 above ``depth``, else a digit of 0 .. 9, all equally likely
    operator  MIN, MAX, MED or SM (sum modulo 10), with 2 .. ``arguments`` nodes, evenly
    length    2 an operator, 1 a digit; kept where it lies strictly between ``shortest`` and ``longest``

The published generator draws its roots by the same rule and throws the many single digits away; here the root is an
operator from the start, which gives the same lists, faster. Its files hold additional round brackets, which every
loader removes. The lists of LRA have 500 to 2000 symbols, ours 100 to 200 unless told otherwise.
Source: Nangia and Bowman, "ListOps: a diagnostic dataset for latent tree learning", 2018, arXiv:1804.06028; Tay et al.,
"Long range arena", 2020, arXiv:2011.04006, section 3.2.1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.rng import generator
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task

FIRST = SPECIALS.count
DIGITS = 10
OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: (sorted(values)[(len(values) - 1) // 2] + sorted(values)[len(values) // 2]) // 2,
    "[SM": lambda values: sum(values) % DIGITS,
}
SYMBOLS = (*map(str, range(DIGITS)), *OPERATORS, "]")
END = SYMBOLS.index("]")
_VALUES = tuple(OPERATORS.values())
SHARE = 0.25  # of operators among the nodes
_SAMPLE = 2000


class ListOps(Task):
    """Lists and their value, one of ten classes."""

    task, objective = "classify", "classify"

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        depth: int = 10
        """Deepest level: nodes there are digits."""
        arguments: int = 10
        """Most nodes of an operator."""
        shortest: int = 100
        """Lists are longer than this."""
        longest: int = 200
        """Lists are shorter than this."""

        def __post_init__(self) -> None:
            """Refuse lists that cannot be."""
            if self.depth < 2 or self.arguments < 2 or not 3 <= self.shortest + 1 < self.longest:
                raise ConfigError(
                    f"lists need a depth and arguments of at least 2 and room for 4 symbols, not {self.depth}, "
                    f"{self.arguments} and {self.shortest} to {self.longest}"
                )
            most, level = 1, self.depth
            while level > 1 and most <= self.shortest:
                most, level = 2 + self.arguments * most, level - 1
            if most <= self.shortest:
                raise ConfigError(f"depth {self.depth} and {self.arguments} arguments give at most {most} symbols")

    def __init__(self, config: Config | None = None) -> None:
        """Short lists are few."""
        super().__init__(config)
        self.crowded = self.config.longest < 50

    @property
    def sizes(self) -> Sizes:
        """Specials, digits, operators and the bracket; ten classes."""
        return Sizes(vocabulary=FIRST + len(SYMBOLS), classes=DIGITS)

    @property
    def floor(self) -> float:
        """Share of the most frequent value, which is not 1/10 (MIN and MAX prefer the ends); counted once a Config."""
        return _majority(self.config)

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """Lists until one has a length that is wanted."""
        config, uniform = self.config, _uniforms(rng)
        while True:
            symbols: list[int] = []
            value = _operator(uniform, 1, symbols, config)
            if value is not None and config.shortest < len(symbols) < config.longest:
                return Drawn(FIRST + np.array(symbols), target=value)

    def oracle(self, example: Example) -> np.ndarray:
        """Read from left to right with a stack."""
        stack: list[tuple[str, list[int]]] = [("", [])]
        for symbol in (SYMBOLS[token] for token in example.tokens.astype(np.int64) - FIRST):
            if symbol in OPERATORS:
                stack.append((symbol, []))
            elif symbol == "]":
                name, values = stack.pop()
                stack[-1][1].append(OPERATORS[name](values))
            else:
                stack[-1][1].append(int(symbol))
        return np.array(stack[0][1])


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1); drawn in blocks, since a draw costs as much as a whole node."""
    while True:
        yield from rng.random(1024).tolist()


def _operator(uniform: Iterator[float], level: int, symbols: list[int], config: ListOps.Config) -> int | None:
    """Append one operator with everything below it; its value, or None once the list is too long to be kept."""
    name = int(next(uniform) * len(OPERATORS))
    symbols.append(DIGITS + name)
    values = []
    for _ in range(2 + int(next(uniform) * (config.arguments - 1))):
        if len(symbols) >= config.longest:
            return None
        if level + 1 < config.depth and next(uniform) < SHARE:
            value = _operator(uniform, level + 1, symbols, config)
            if value is None:
                return None
        else:
            value = int(next(uniform) * DIGITS)
            symbols.append(value)
        values.append(value)
    symbols.append(END)
    return _VALUES[name](values)


@cache
def _majority(config: ListOps.Config) -> float:
    """Share of the most frequent class among lists that no part holds."""
    task = ListOps(config)
    values = [task.draw(generator(0, "ListOps", "floor", i), Place("train", i)).target for i in range(_SAMPLE)]
    return float(np.bincount(np.array(values)).max() / _SAMPLE)
