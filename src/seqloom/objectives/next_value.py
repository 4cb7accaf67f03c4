"""Predict the next value: what the head of the model calls its loss, the likelihood or the pinball loss.

    L = 1 / P sum_t sum_p loss(distribution_t,p, y_{t+1,p})        over y_1 .. y_n      (y_1 is predicted from zeros)

Shapes: B rows, T time, C channels, P predicted channels (the first of C), K parameters of one distribution.
Inputs are 0, y_1 .. y_{n-1}, targets y_1 .. y_n. A window that continues an earlier one opens with its predecessor's
last value instead of zeros (``opens`` False). There is no end to predict. Inputs beside the values are unknown where a
forecast goes further than one step, so some examples lose them from a random step on.
Source: Salinas et al., "DeepAR", 2017, arXiv:1704.04110, section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives._base import Objective, Term, one_sequence, place


class NextValue(Objective):
    """The head's loss of every next value, per value."""

    causal = True
    output: ClassVar[str] = "distribution"
    terms = ("loss",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Options of the loss."""

        predicted: int = 0
        """Channels that are predicted, the first ones; behind them lies whether they are known, then the inputs.
        0 = nothing is withheld."""
        withheld: float = 0.1
        """Share of examples whose inputs are zeros from a random step on, as they are where a model writes more."""

    def corrupt(self, example: Example, rng: np.random.Generator) -> Example:
        """Withhold inputs, where the example has any; the values stay."""
        inputs = self.config.predicted + 1
        if not self.config.predicted or example.values is None or example.values.shape[1] <= inputs:
            return example
        if rng.random() >= self.config.withheld:
            return example
        values = example.values.copy()
        values[rng.integers(len(values) + 1) :, inputs:] = 0
        return replace(example, values=values)

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Right-padded rows, packed where row numbers repeat; ``targets`` (B, T, C) hold every channel."""
        one_sequence(examples, "next_value")
        lines = [_line(example) for example in examples]
        at = place([len(line) - 1 for line in lines], rows)
        shape = (len(at.lengths_B), int(at.lengths_B.max(initial=0)))
        channels = max((line.shape[1] for line in lines), default=1)
        values_BTC, targets_BTC = (np.zeros((*shape, channels), np.float32) for _ in range(2))
        weights_BT, starts_BT = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for line, row, begin in zip(lines, at.row_E, at.begin_E, strict=True):
            columns = slice(begin, begin + len(line) - 1)
            values_BTC[row, columns], targets_BTC[row, columns] = line[:-1], line[1:]
            weights_BT[row, columns] = 1
            starts_BT[row, begin : begin + 1] = len(line) > 1
        return Batch(
            values_BTC=torch.from_numpy(values_BTC),
            targets=torch.from_numpy(targets_BTC),
            weights=torch.from_numpy(weights_BT),
            layout=at.layout(starts_BT),
            index_B=at.numbers(examples),
        )

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms ``loss`` (the head's) and ``nll`` (nats a value; reported)."""
        if batch.targets is None or batch.weights is None:
            raise ConfigError("next_value needs targets and weights")
        distribution_BTPK, head = outputs["distribution"].float(), outputs["head"]
        y_BTP = batch.targets[..., : distribution_BTPK.shape[2]].to(distribution_BTPK.dtype)
        count = batch.weights.sum()

        def mean(each_BTP: torch.Tensor) -> torch.Tensor:
            return torch.where(batch.weights > 0, each_BTP.mean(-1), 0).sum()  # type: ignore[operator]

        loss_BTP = head.loss(distribution_BTPK, y_BTP)
        nll_BTP = -head.log_prob(distribution_BTPK.detach(), y_BTP)
        return {"loss": Term(mean(loss_BTP), count), "nll": Term(mean(nll_BTP), count, weight=0.0)}


def _line(example: Example) -> np.ndarray:
    """Every step from the first input to the last target."""
    if example.values is None or len(example.tokens):
        raise ConfigError(f"next_value reads values alone: example {example.index} has something else")
    first = np.zeros((int(example.opens), example.values.shape[1]), np.float32)
    line = np.concatenate([first, example.values])
    if not len(line):
        raise ConfigError(f"example {example.index} has no value to begin with")
    return line
