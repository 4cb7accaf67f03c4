"""Selective copying: remember the few symbols that matter, at places that differ each time.

    _ b _ _ d _ a _ _ | b d a        context of blanks and ``keep`` symbols, a mark, then the symbols in order

A time-invariant filter of fixed length copies what stands at fixed distances; here the distances are drawn anew, so
that a model has to choose by content what it keeps. The mark is <sep>; each symbol is drawn evenly and independently.
The model sees the answers before the one that it predicts (teacher forcing), which tells nothing about the next.
Source: Gu and Dao, "Mamba", 2023, arXiv:2312.00752, section 3.1 and appendix E.1; Jing et al., "Gated orthogonal
recurrent units", 2019, arXiv:1706.02761 (the denoise task).
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Place, Task

BLANK = SPECIALS.count
FIRST = BLANK + 1


class SelectiveCopy(Task):
    """``length`` columns of context with ``keep`` symbols in them, then the symbols: length + keep predictions."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        vocab: int = 8
        """Symbols that are to be kept; the blank is one more."""
        keep: int = 4
        """Symbols in a context."""
        length: int = 60
        """Columns of the context; the published task has 4096, with 16 symbols of 16 to keep."""
        test_length: int = 0
        """Columns of the context of test examples; 0 = as many as in training."""

        def __post_init__(self) -> None:
            """Refuse a context without room."""
            shortest = min(self.length, self.test_length or self.length)
            if not 1 <= self.keep <= shortest or self.vocab < 2:
                raise ConfigError(
                    f"a context of {shortest} must hold {self.keep} symbols of at least 2, not {self.vocab}"
                )

    @property
    def sizes(self) -> Sizes:
        """Specials, the blank and the symbols."""
        return Sizes(vocabulary=FIRST + self.config.vocab)

    @property
    def floor(self) -> float:
        """One symbol in ``vocab``: they are drawn evenly."""
        return 1.0 / self.config.vocab

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """Places without repetition, symbols with."""
        keep = self.config.keep
        length = (self.config.test_length if place.part == "test" else 0) or self.config.length
        places = np.sort(rng.choice(length, keep, replace=False))
        symbols = FIRST + rng.integers(self.config.vocab, size=keep)
        tokens = np.full(length + 1 + keep, BLANK, dtype=np.int32)
        tokens[places], tokens[length], tokens[length + 1 :] = symbols, SPECIALS.sep, symbols
        return Drawn(tokens, np.arange(len(tokens)) > length)

    def oracle(self, example: Example) -> np.ndarray:
        """The symbols of the context in order: always right."""
        context = example.tokens[: int(np.argmax(example.tokens == SPECIALS.sep))]
        return context[context != BLANK]
