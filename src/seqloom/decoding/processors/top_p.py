"""The smallest set of tokens that holds a share of the probability (nucleus sampling).

    l_v <- l_v  if the tokens better than v hold less than p together, else -inf

Shapes: B hypotheses, V vocabulary. Of equal logits the lower id is better.
Source: Holtzman et al., "The curious case of neural text degeneration", 2019, arXiv:1904.09751, section 3.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.state import State
from seqloom.decoding._base import Processor
from seqloom.decoding._hypotheses import Hypotheses


class TopP(Processor):
    """Keeps the nucleus; never less than one token."""

    kind = "truncation"

    @dataclass(frozen=True, kw_only=True)
    class Config(Processor.Config):
        """How much."""

        p: float = 0.9
        """Share of the probability that the kept tokens reach."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError for a share outside (0, 1]."""
        super().__init__(config)
        if not 0 < self.config.p <= 1:
            raise ConfigError(f"top_p.p must be in (0, 1], not {self.config.p}")

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        if self.config.p == 1:
            return logits_BV
        sorted_BV, order_BV = logits_BV.sort(dim=1, descending=True, stable=True)
        share_BV = sorted_BV.softmax(1)
        better_BV = share_BV.cumsum(1) - share_BV
        gone_BV = better_BV >= self.config.p
        return logits_BV.masked_fill(torch.zeros_like(gone_BV).scatter_(1, order_BV, gone_BV), -torch.inf)
