"""Masked modelling: hide some symbols and ask for them, from both sides.

    L = - sum_{t in M} log p(x_t | x~)        x~ the sequence with the positions of M hidden

A share of the positions is drawn anew in every epoch. Of these, ``masked`` become <mask>, ``swapped`` another symbol of
the same sequence, and the rest stay as they are, so that a model cannot rely on what it sees. At least one position of
a sequence that has any is asked for.

Shapes: B rows, T time, V vocabulary.
Source: Devlin, Chang, Lee, Toutanova, "BERT: pre-training of deep bidirectional transformers for language
understanding", 2018, arXiv:1810.04805, section 3.1. A symbol of the same sequence stands for their random one: the
objective does not know the vocabulary, and the symbol is as frequent as those around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives._base import Objective, Term
from seqloom.objectives.tag import Tag


class MaskedToken(Objective):
    """Cross-entropy of the symbols that were hidden."""

    margin = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """What is hidden, and how."""

        share: float = 0.15
        """Share of the positions that are asked for."""
        masked: float = 0.8
        """Share of those that become <mask>."""
        swapped: float = 0.1
        """Share of those that become another symbol of the same sequence; the rest stay."""

        def __post_init__(self) -> None:
            """Refuse shares that are none."""
            if not 0 < self.share <= 1 or min(self.masked, self.swapped) < 0 or self.masked + self.swapped > 1:
                raise ConfigError(f"masked_token: share is in (0, 1], masked + swapped at most 1, not {self}")

    def corrupt(self, example: Example, rng: np.random.Generator) -> Example:
        """Hide a share of the symbols; the labels say which they were."""
        length = len(example.tokens)
        if not length:
            return example
        weight = np.zeros(length, dtype=np.float32)
        chosen = rng.choice(length, max(1, round(self.config.share * length)), replace=False)
        fate, tokens = rng.random(len(chosen)), example.tokens.copy()
        hidden, swapped = fate < self.config.masked, fate >= 1 - self.config.swapped
        weight[chosen] = 1.0
        tokens[chosen[hidden]] = self.specials.mask
        tokens[chosen[swapped]] = example.tokens[rng.integers(length, size=int(swapped.sum()))]
        return replace(example, tokens=tokens, labels={"answer": example.tokens, "weight": weight})

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Right-padded rows, packed where row numbers repeat; what was not hidden is not asked for."""
        asked = [
            e if "answer" in e.labels else replace(e, labels={"weight": np.zeros(len(e.tokens))}) for e in examples
        ]
        return Tag().batch(asked, rows=rows)

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms ``nll`` (nats a hidden symbol) and ``accuracy`` (reported)."""
        return Tag().loss(outputs, batch)
