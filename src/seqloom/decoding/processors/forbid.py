"""Tokens that must not be written.

    l_v = -inf  for v in tokens

Shapes: B hypotheses, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.state import State
from seqloom.decoding._base import Processor
from seqloom.decoding._hypotheses import Hypotheses


class Forbid(Processor):
    """Masks some tokens at every step; ids beyond the vocabulary are none of its business."""

    kind = "mask"

    @dataclass(frozen=True, kw_only=True)
    class Config(Processor.Config):
        """What is forbidden."""

        tokens: tuple[int, ...] = ()
        """Ids."""

    def __init__(self, config: Config | None = None) -> None:
        """Ids as tensors, a device each, are made once."""
        super().__init__(config)
        self._ids: dict[tuple[torch.device, int], Tensor] = {}

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        where = (logits_BV.device, logits_BV.shape[1])
        if where not in self._ids:
            ids = [token for token in self.config.tokens if token < where[1]]
            self._ids[where] = torch.tensor(ids, dtype=torch.long, device=where[0])
        return logits_BV.index_fill(1, self._ids[where], -torch.inf)
