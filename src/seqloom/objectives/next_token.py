"""Predict the next symbol: maximum likelihood of an autoregressive model.

    L = - sum_t log p(x_{t+1} | x_1..x_t)    over x_1 .. x_n, end      (the first symbol is predicted from <bos>)

Shapes: B rows, T time, V vocabulary. Inputs are <bos> x_1 .. x_n, targets x_1 .. x_n <eos>, shifted here once.
A window that continues an earlier one opens with its predecessor's last symbol instead of <bos> (``opens`` False) and
ends without <eos> (``closes`` False). Inputs beside the symbols are seen with them: x_t and its values predict x_{t+1}.
Source: Bengio et al., "A neural probabilistic language model", 2003; label smoothing: Szegedy et al., 2015,
arXiv:1512.00567, section 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives._base import Objective, Rows, Term, one_sequence, place


class NextToken(Objective):
    """Cross-entropy of every next symbol, the end symbol included."""

    causal = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Options of the loss."""

        smoothing: float = 0.0
        """Share of each target's mass that is spread evenly over the vocabulary."""
        withheld: float = 0.1
        """Share of examples whose inputs are zeros from a random symbol on, as they are where a model writes more."""

    def corrupt(self, example: Example, rng: np.random.Generator) -> Example:
        """Withhold inputs, where the example has any."""
        if example.values is None or rng.random() >= self.config.withheld:
            return example
        values = example.values.copy()
        values[rng.integers(len(values) + 1) :] = 0
        return replace(example, values=values)

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Right-padded rows, packed where row numbers repeat; an example's weights are its label ``weight`` if any."""
        one_sequence(examples, "next_token")
        at = place([len(e.tokens) - (not e.opens) + e.closes for e in examples], rows)
        made = Rows(at, np.int64, self.specials.pad)
        for example, row, begin in zip(examples, at.row_E, at.begin_E, strict=True):
            line = self._line(example)
            columns = slice(begin, begin + len(line) - 1)
            made.tokens_BT[row, columns], made.targets_BT[row, columns] = line[:-1], line[1:]
            made.weights_BT[row, columns] = self._weights(example, len(line) - 1)
        return made.batch(examples)

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms ``nll`` (nats; the loss) and ``accuracy`` (reported)."""
        if batch.targets is None or batch.weights is None:
            raise ConfigError("next_token needs targets and weights")
        logits_BTV, count = outputs.logits.float(), batch.weights.sum()
        nll_BT = cross_entropy(
            logits_BTV.flatten(0, 1), batch.targets.flatten(), reduction="none", label_smoothing=self.config.smoothing
        )
        hits_BT = (logits_BTV.detach().argmax(-1) == batch.targets) * batch.weights
        return {
            "nll": Term(_weighted(nll_BT, batch.weights), count),
            "accuracy": Term(hits_BT.sum(), count, weight=0.0),
        }

    def _line(self, example: Example) -> np.ndarray:
        """Everything from the first input to the last target."""
        ends = [self.specials.eos] if example.closes else []
        line = np.concatenate([[self.specials.bos] if example.opens else [], example.tokens, ends]).astype(np.int64)
        if len(line) < 1:
            raise ConfigError(f"example {example.index} has neither symbols nor ends")
        return line

    def _weights(self, example: Example, width: int) -> np.ndarray | float:
        given = example.labels.get("weight")
        if given is None:
            return 1.0
        own = given if example.opens else given[1:]  # the first symbol of a continued window is input alone
        return np.concatenate([own, np.ones(width - len(own), dtype=np.float32)])


def _weighted(loss_BT: Tensor, weights_BT: Tensor) -> Tensor:
    # where, not a product: an infinite loss at a masked position must not become NaN
    flat_BT = loss_BT.view_as(weights_BT)
    return torch.where(weights_BT > 0, flat_BT * weights_BT, 0).sum()
