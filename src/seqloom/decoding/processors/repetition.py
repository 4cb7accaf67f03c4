"""Tokens that were read or written before become less probable.

    l_v <- l_v / penalty  if l_v > 0, else l_v * penalty        for every v of the prompt and of what was written

Shapes: B hypotheses, V vocabulary, L columns.
Source: Keskar et al., "CTRL: a conditional transformer language model", 2019, arXiv:1909.05858, section 4.1; the sign
rule, without which a penalty would help tokens with negative logits, is common practice since.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.state import State
from seqloom.decoding._base import Processor
from seqloom.decoding._hypotheses import Hypotheses


class Repetition(Processor):
    """Penalises what was seen; it depends on the logits' zero, so it comes first and sees them raw."""

    kind = "penalty"

    @dataclass(frozen=True, kw_only=True)
    class Config(Processor.Config):
        """How strongly."""

        penalty: float = 1.2
        """1 = none; above 1 discourages, below 1 encourages."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError for a penalty that is not positive."""
        super().__init__(config)
        if self.config.penalty <= 0:
            raise ConfigError(f"repetition.penalty must be above 0, not {self.config.penalty}")

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        tokens_BL, held_BL = hypotheses.read()
        seen_BV = torch.zeros_like(logits_BV).scatter_add_(1, tokens_BL, held_BL.to(logits_BV.dtype)) > 0
        penalty = self.config.penalty
        return torch.where(seen_BV, torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)
