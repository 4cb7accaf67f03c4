"""Tokens drawn from the model's distribution, as it is or truncated.

    y_t = first v with  sum_{u <= v} p_u > U(seed, key of the row, t)        p = softmax(l), float32 or wider

What a row gets depends on its own logits, its key and its step, never on the batch around it.

Shapes: B hypotheses, V vocabulary.
Source: inverse transform sampling; the random numbers: ``core.rng``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.protocols import Stepper
from seqloom.core.rng import uniform_rows
from seqloom.decoding._base import Decoder, Processor, Stop, Stream
from seqloom.decoding._engine import Task, search
from seqloom.decoding._hypotheses import Hypotheses
from seqloom.decoding.processors.min_p import MinP
from seqloom.decoding.processors.repetition import Repetition
from seqloom.decoding.processors.temperature import Temperature
from seqloom.decoding.processors.top_k import TopK
from seqloom.decoding.processors.top_p import TopP


class Sample(Decoder):
    """Random sequences; applied in this order: repetition, temperature, top-k, top-p, min-p."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoder.Config):
        """Shape of the distribution."""

        temperature: float = 1.0
        """Below 1 sharpens, above 1 flattens."""
        top_k: int = 0
        """Keep only so many tokens; 0 = all."""
        top_p: float = 1.0
        """Keep the smallest set with this share of the probability; 1 = all."""
        min_p: float = 0.0
        """Keep tokens with at least this share of the best one's probability; 0 = all."""
        repetition: float = 1.0
        """Penalty on tokens seen before; 1 = none."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError where an option lies outside its range."""
        super().__init__(config)
        given = self.config
        every = (
            (given.repetition != 1, Repetition.Config(penalty=given.repetition)),
            (given.temperature != 1, Temperature.Config(value=given.temperature)),
            (given.top_k != 0, TopK.Config(k=given.top_k)),
            (given.top_p != 1, TopP.Config(p=given.top_p)),
            (given.min_p != 0, MinP.Config(share=given.min_p)),
        )
        self.processors: tuple[Processor, ...] = tuple(config.build() for wanted, config in every if wanted)

    def stream(
        self,
        stepper: Stepper,
        batch: Batch,
        *,
        limit: int,
        seed: int = 0,
        processors: Sequence[Processor] = (),
        stop: Stop | None = None,
    ) -> Stream:
        """Continue the rows of a batch, the same for the same seed and keys."""
        task = Task.of(self, stepper, batch, limit, seed, stop).adding((*processors, *self.processors))
        return search(task, lambda scores_BV, hypotheses: _draw(scores_BV, hypotheses, seed))


def _draw(scores_BV: Tensor, hypotheses: Hypotheses, seed: int) -> Tensor:
    """Invert the cumulative distribution; a token of probability 0 is never drawn."""
    mass_BV = scores_BV.softmax(1).double().cumsum(1)
    total_B1 = mass_BV[:, -1:]
    u_B1 = uniform_rows(seed, hypotheses.key_B, hypotheses.length_B)[:, None] * total_B1
    u_B1 = torch.minimum(u_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))  # the product may round up
    return torch.searchsorted(mass_BV, u_B1, right=True)[:, 0].clamp_max(scores_BV.shape[1] - 1)
