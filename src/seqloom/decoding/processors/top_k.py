"""Only the k most probable tokens.

    l_v <- l_v  if fewer than k tokens are better (of equal logits the lower id is better), else -inf

Shapes: B hypotheses, V vocabulary.
Source: Fan, Lewis and Dauphin, "Hierarchical neural story generation", 2018, arXiv:1805.04833, section 5.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.state import State
from seqloom.decoding._base import Processor
from seqloom.decoding._hypotheses import Hypotheses


class TopK(Processor):
    """Keeps exactly k tokens, whatever ties there are."""

    kind = "truncation"

    @dataclass(frozen=True, kw_only=True)
    class Config(Processor.Config):
        """How many."""

        k: int = 50
        """Tokens kept."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError where nothing would be kept."""
        super().__init__(config)
        if self.config.k < 1:
            raise ConfigError(f"top_k.k must be at least 1, not {self.config.k}")

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        if self.config.k >= logits_BV.shape[1]:
            return logits_BV
        lowest_B1 = logits_BV.topk(self.config.k).values[:, -1:]
        above_BV, equal_BV = logits_BV > lowest_B1, logits_BV == lowest_B1
        room_B1 = self.config.k - above_BV.sum(1, keepdim=True)
        kept_BV = above_BV | (equal_BV & (equal_BV.cumsum(1) <= room_B1))
        return logits_BV.masked_fill(~kept_BV, -torch.inf)
