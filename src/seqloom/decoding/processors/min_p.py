"""Only tokens that are not too improbable beside the best.

    l_v <- l_v  if p_v >= share * max p, else -inf

Shapes: B hypotheses, V vocabulary.
Source: Nguyen et al., "Turning up the heat: min-p sampling", 2024, arXiv:2407.01082, section 4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.state import State
from seqloom.decoding._base import Processor
from seqloom.decoding._hypotheses import Hypotheses


class MinP(Processor):
    """Keeps what has a share of the best token's probability."""

    kind = "truncation"

    @dataclass(frozen=True, kw_only=True)
    class Config(Processor.Config):
        """How much."""

        share: float = 0.05
        """Least probability, as a share of the best token's."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError for a share outside [0, 1]."""
        super().__init__(config)
        if not 0 <= self.config.share <= 1:
            raise ConfigError(f"min_p.share must be in [0, 1], not {self.config.share}")

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        if self.config.share == 0:
            return logits_BV
        least_B1 = logits_BV.amax(1, keepdim=True) + math.log(self.config.share)
        return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
