"""Predict the class of a whole sequence.

    L = - sum_i log p(y_i | x_i)

Shapes: B rows, E examples (rows, or segments of packed rows), V vocabulary. Values, alone or beside symbols, lie
between two steps of zeros; a model without a vocabulary leaves <bos> and <eos> there unread.
Source: cross-entropy classification, e.g. Bishop, "Pattern recognition and machine learning", 2006, section 4.3.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives._base import Objective, Term, beside, one_sequence, place, steps


class Classify(Objective):
    """Cross-entropy of the class of each sequence."""

    margin = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Options of the loss."""

        smoothing: float = 0.0
        """Share of each target's mass that is spread evenly over the classes."""

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Right-padded rows, packed where row numbers repeat; targets (E,) in order of rows and columns."""
        one_sequence(examples, "classify")
        at = place([steps(example) + 2 for example in examples], rows)
        shape = (len(at.lengths_B), int(at.lengths_B.max(initial=0)))
        tokens_BT = np.full(shape, self.specials.pad, dtype=np.int64)
        starts_BT = np.zeros(shape, dtype=bool)
        for example, row, begin in zip(examples, at.row_E, at.begin_E, strict=True):
            line = np.concatenate([[self.specials.bos], example.tokens, [self.specials.eos]])
            tokens_BT[row, begin : begin + len(line)] = line
            starts_BT[row, begin] = True
        order = np.lexsort((at.begin_E, at.row_E))
        return Batch(
            tokens_BT=torch.from_numpy(tokens_BT),
            values_BTC=beside(examples, at, shape[1]),
            targets=torch.tensor([self._target(examples[i]) for i in order], dtype=torch.long),
            weights=torch.tensor([float(examples[i].target is not None) for i in order]),
            layout=at.layout(starts_BT),
            index_B=torch.tensor([examples[i].index for i in order], dtype=torch.long),
        )

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms ``nll`` (nats; the loss) and ``accuracy`` (reported); examples without a class weigh nothing."""
        if batch.targets is None or batch.weights is None:
            raise ConfigError("classify needs targets and weights")
        logits_EV, count = outputs.logits.float(), batch.weights.sum()
        nll_E = cross_entropy(logits_EV, batch.targets, reduction="none", label_smoothing=self.config.smoothing)
        hits_E = (logits_EV.detach().argmax(-1) == batch.targets) * batch.weights
        return {
            "nll": Term((nll_E * batch.weights).sum(), count),
            "accuracy": Term(hits_E.sum(), count, weight=0.0),
        }

    def _target(self, example: Example) -> int:
        if example.target is None:
            return 0
        if not isinstance(example.target, int | np.integer):
            raise ConfigError(f"example {example.index} has the target {example.target!r}, not the number of a class")
        return int(example.target)
