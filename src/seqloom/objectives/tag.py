"""Answer a question at every position: the answer is no part of the sequence, so nothing is shifted.

    L = - sum_t w_t log p(a_t | x_1 .. x_t)    a_t the label ``answer``, w_t the label ``weight``, else 1

Shapes: B rows, T time, V vocabulary. Answers are ids of the same vocabulary, read from the model's logits at t. An
example that opens has <bos> before its first symbol, which asks nothing; one without answers weighs nothing. A model
that sees the future is not barred: it cannot copy what is not there, though it may know more than the task intends.
Source: per-position cross-entropy of sequence labelling, e.g. Graves, "Supervised sequence labelling with recurrent
neural networks", 2012, section 2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives._base import Objective, Rows, Term, one_sequence, place
from seqloom.objectives.next_token import NextToken


class Tag(Objective):
    """Cross-entropy of the answer at every position that has one."""

    margin = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Options of the loss."""

        smoothing: float = 0.0
        """Share of each answer's mass that is spread evenly over the vocabulary."""

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Right-padded rows, packed where row numbers repeat; targets stand in the column that answers."""
        one_sequence(examples, "tag")
        at = place([len(example.tokens) + example.opens for example in examples], rows)
        made = Rows(at, np.int64, self.specials.pad)
        for example, row, begin, width in zip(examples, at.row_E, at.begin_E, at.width_E, strict=True):
            first = begin + int(example.opens)
            made.tokens_BT[row, begin:first] = self.specials.bos
            made.tokens_BT[row, first : begin + width] = example.tokens
            answer = example.labels.get("answer")
            if answer is not None:
                made.targets_BT[row, first : begin + width] = answer
                made.weights_BT[row, first : begin + width] = example.labels.get("weight", 1.0)
        return made.batch(examples)

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms ``nll`` (nats an answer) and ``accuracy`` (reported): those of next_token, whose targets differ."""
        if batch.targets is None or batch.weights is None:
            raise ConfigError("tag needs targets and weights")
        return NextToken(NextToken.Config(smoothing=self.config.smoothing)).loss(outputs, batch)
