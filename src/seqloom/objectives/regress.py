"""Tell a number after every event: what the head of the model calls its loss, the likelihood or the pinball loss.

    L = 1 / n sum_t loss(distribution_t, y_t)      over the events t = 1 .. n and, before any of them, t = 0

Shapes: B rows, T time, P numbers (one), K parameters of one distribution.
Inputs are <bos>, x_1 .. x_n; the numbers stand in the label ``y`` (T,) of an example, scaled, NaN where nobody knows
one. Before the first event y_0 = y_1: all of it remains. A window that continues an earlier one begins with its
predecessor's last symbol, which is input alone.
Source: Verenich et al., "Survey and cross-benchmark comparison of remaining time prediction methods in business process
monitoring", 2019, arXiv:1805.02896, for prefixes as examples; losses as in layers/gaussian and quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives._base import Objective, Rows, Term, one_sequence, place, steps

LABEL = "y"


class Regress(Objective):
    """The head's loss of the number after every event."""

    causal = True
    margin = 1
    output: ClassVar[str] = "distribution"
    terms = ("loss",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """The loss is the head's: there is nothing to choose."""

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Right-padded rows, packed where row numbers repeat; ``targets`` (B, T), weight 0 where none is known."""
        one_sequence(examples, "regress")
        at = place([steps(example) + int(example.opens) for example in examples], rows)
        made = Rows(at, np.float32)
        for example, row, begin, width in zip(examples, at.row_E, at.begin_E, at.width_E, strict=True):
            columns = slice(begin, begin + width)
            made.tokens_BT[row, begin : begin + int(example.opens)] = self.specials.bos
            made.tokens_BT[row, columns][int(example.opens) :] = example.tokens
            y_T = _numbers(example)
            known_T = np.isfinite(y_T)
            made.targets_BT[row, columns], made.weights_BT[row, columns] = np.where(known_T, y_T, 0), known_T
        return made.batch(examples)

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms ``loss`` (the head's) and ``nll`` (nats a number; reported)."""
        if batch.targets is None or batch.weights is None:
            raise ConfigError("regress needs targets and weights")
        weights_BT, head = batch.weights, outputs["head"]
        distribution_BTK = outputs["distribution"].float()[:, :, 0]
        y_BT = batch.targets.to(distribution_BTK.dtype)

        def summed(each_BT: Tensor) -> Tensor:
            return torch.where(weights_BT > 0, each_BT, 0).sum()

        nll_BT = -head.log_prob(distribution_BTK.detach(), y_BT)
        return {
            "loss": Term(summed(head.loss(distribution_BTK, y_BT)), weights_BT.sum()),
            "nll": Term(summed(nll_BT), weights_BT.sum(), weight=0.0),
        }


def _numbers(example: Example) -> np.ndarray:
    """The number of every column of an example: <bos>, where it opens, then its events."""
    y_T = example.labels.get(LABEL)
    if y_T is None or len(y_T) != steps(example):
        raise ConfigError(f"example {example.index} has no number after each of its events (the label {LABEL!r})")
    if example.opens:
        return np.concatenate([y_T[:1] if len(y_T) else [np.nan], y_T])
    return np.where(np.arange(len(y_T)) > 0, y_T, np.nan)
