"""Multi-query associative recall: pairs of key and value, then keys at places of their own, each to be answered.

    k1 v1 k2 v2 .. kD vD | x x k2 x x x x x k1 x ..        at k2 the answer is v2, at k1 it is v1; x is noise

    keys      D different ones of 1 .. V/2 - 1                    values    D different ones of V/2 .. V - 1
    slots     (N - 2 D) / 2 pairs of columns; the query of a key stands first in slot g, all g different,
              p(g) proportional to a (g + 1)^(a - 1): small a puts most queries close to the pairs
    noise     every column that is left: any symbol of 0 .. V - 1 (or all 0, with ``noise`` False)

An answer is no part of the sequence, so a model never reads one. Noise may repeat a key behind the pairs, as in the
reference; the pairs themselves are never touched. A small V is solved by fixed filters: take 256 or more.
Source: Arora et al., "Zoology: measuring and improving recall in efficient language models", 2023, arXiv:2312.04927,
section 3.2 and appendix E.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic._base import Drawn, Part, Place, Task

FIRST = SPECIALS.count  # the id of the reference's symbol 0


class MQAR(Task):
    """``pairs`` associations, each asked for once."""

    objective = "tag"
    crowded = True  # a small one has few words

    @dataclass(frozen=True, kw_only=True)
    class Config(Task.Config):
        """Size of the task."""

        vocab: int = 256
        """Symbols V: a blank, keys below V/2, values from there on."""
        length: int = 64
        """Columns N, pairs included."""
        pairs: int = 8
        """Keys that are bound and asked for."""
        power: float = 0.01
        """The constant a: 1 spreads the queries evenly, less draws them to the pairs."""
        noise: bool = True
        """Random symbols between the queries instead of blanks."""
        test_length: int = 0
        """Columns of test examples; 0 = as many as in training."""
        test_pairs: int = 0
        """Pairs of test examples; 0 = as many as in training."""

        def __post_init__(self) -> None:
            """Refuse what does not fit."""
            for length, pairs in (self.shape("train"), self.shape("test")):
                if pairs < 1 or length % 2 or 4 * pairs > length:
                    raise ConfigError(f"{pairs} pairs and their queries need an even length of 4 a pair, not {length}")
                if self.vocab % 2 or self.vocab // 2 - 1 < pairs:
                    raise ConfigError(f"{pairs} pairs need an even vocabulary of {2 * pairs + 2}, not {self.vocab}")
            if self.power <= 0:
                raise ConfigError(f"the power must be above 0, not {self.power}")

        def shape(self, part: Part) -> tuple[int, int]:
            """Columns and pairs of a part."""
            if part != "test":
                return self.length, self.pairs
            return self.test_length or self.length, self.test_pairs or self.pairs

    @property
    def sizes(self) -> Sizes:
        """Specials and the symbols."""
        return Sizes(vocabulary=FIRST + self.config.vocab)

    @property
    def floor(self) -> float:
        """One value in V/2: each is as likely as any other."""
        return 2.0 / self.config.vocab

    def draw(self, rng: np.random.Generator, place: Place) -> Drawn:
        """Pairs, slots by the power law, noise over what is blank."""
        (length, pairs), half = self.config.shape(place.part), self.config.vocab // 2
        keys = 1 + rng.choice(half - 1, pairs, replace=False)
        values = half + rng.choice(half, pairs, replace=False)
        slots = (length - 2 * pairs) // 2
        likely_G = self.config.power * np.arange(1, slots + 1) ** (self.config.power - 1)
        queries = 2 * pairs + 2 * rng.choice(slots, pairs, replace=False, p=likely_G / likely_G.sum())
        tokens = rng.integers(self.config.vocab, size=length) if self.config.noise else np.zeros(length, np.int64)
        tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2], tokens[queries] = keys, values, keys
        answers = np.full(length, SPECIALS.pad)
        answers[queries] = FIRST + values
        return Drawn(FIRST + tokens, answers != SPECIALS.pad, answers)

    def oracle(self, example: Example) -> np.ndarray:
        """Look every query up where its key first stood in a key's column: noise only comes behind the pairs."""
        keys, values = (example.tokens[at::2][: len(example.tokens) // 2].tolist() for at in (0, 1))
        bound = dict(zip(reversed(keys), reversed(values), strict=False))
        return np.array([bound[key] for key in example.tokens[example.labels["weight"] == 1].tolist()])
