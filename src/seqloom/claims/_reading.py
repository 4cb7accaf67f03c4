"""Other ways of reading for a trained attention: a window and sinks, or an oracle that knows every score.

Shapes: B batch, H query heads, G key heads, T queries, S keys, K key width, V value width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.kernels.sparse_attention import sparse_attention
from seqloom.layers._selection import best
from seqloom.mixers.attention.attention import Attention


@contextmanager
def reading(model: nn.Module, way: nn.Module) -> Iterator[None]:
    """Let every attention layer read another way meanwhile."""
    layers = [part for part in model.modules() if isinstance(part, Attention)]
    for layer in layers:
        layer.sparse = way
    try:
        yield
    finally:
        for layer in layers:
            layer.sparse = None


class Nearest(nn.Module):
    """A window and sinks, of the same number of keys."""

    def __init__(self, window: int, sinks: int) -> None:
        """Nothing to learn."""
        super().__init__()
        self.window, self.sinks = window, sinks

    def forward(self, q: Tensor, k: Tensor, v: Tensor, offset_B: Tensor) -> Tensor:
        """No list."""
        none = offset_B.new_full((len(q), 1, q.shape[2], 0), -1)
        return sparse_attention(q, k, v, none, offset_B, 1, 1, self.window, self.sinks)[0]


class Oracle(nn.Module):
    """The keys of the largest scores of every query, which costs all scores."""

    def __init__(self, count: int, window: int, sinks: int) -> None:
        """Nothing to learn."""
        super().__init__()
        self.count, self.window, self.sinks = count, window, sinks

    def forward(self, q: Tensor, k: Tensor, v: Tensor, offset_B: Tensor) -> Tensor:
        """Scores of everything, and the best of them."""
        at_T = torch.arange(q.shape[2], device=q.device)
        seen_BTS = torch.arange(k.shape[2], device=q.device) <= offset_B[:, None, None] + at_T[:, None]
        score: Any = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT
        lists = best(score, self.count, seen_BTS[:, None])
        return sparse_attention(q, k, v, lists, offset_B, 1, 1, self.window, self.sinks)[0]
