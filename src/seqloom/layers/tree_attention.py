"""Attention that looks where a tree search points: exact softmax over what it finds, the nearest keys and the first.

    list = tree_topk(q, k)         o = softmax attention over list + window + sinks

For models that were trained with full attention: it has no parameters. Blocks of queries share a list; as long as
there are no more keys than the budget, everything is seen and the result is that of full attention.

Shapes: B batch, H query heads, G key heads, T queries, S keys, K key width, V value width.
Source: Lee et al., "A training-free sub-quadratic cost transformer model serving framework with hierarchically pruned
attention", 2024, arXiv:2406.09827, sections 3 and 4; sinks and window: Xiao et al., 2023, arXiv:2309.17453.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.kernels.sparse_attention import sparse_attention
from seqloom.kernels.tree_topk import evaluations, tree_topk


class TreeAttention(Component, nn.Module):
    """Sub-quadratic attention for trained models."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """How much is looked at."""

        budget: int = 512
        """Keys that the search may find for a block of queries."""
        keys: int = 2
        """Keys of a block: they are found and seen together."""
        queries: int = 32
        """Queries that share a list; 1 = each has its own, and none is chosen with a look at later ones."""
        stride: int = 4
        """Every how many-th query of a block takes part in the search."""
        window: int = 128
        """Nearest positions, which are always seen."""
        sinks: int = 16
        """First positions, which are always seen."""

        def __post_init__(self) -> None:
            """ConfigError where nothing could be found."""
            if min(self.budget, self.keys, self.queries, self.stride, self.window) < 1 or self.sinks < 0:
                raise ConfigError(f"tree attention needs positive numbers, sinks of at least 0, not {self}")
            if self.budget % self.keys:
                raise ConfigError(f"a budget of {self.budget} keys is no number of blocks of {self.keys}")

    def __init__(self, config: Config | None = None) -> None:
        """Nothing to learn."""
        super().__init__()
        self.config = config or self.Config()

    def forward(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, offset_B: Tensor) -> Tensor:
        """Outputs (B, H, T, V); query t of row b stands at position offset_b + t, and keys beyond it do not count."""
        options, T = self.config, q_BHTK.shape[2]
        if T == 0:
            return q_BHTK.new_zeros(*q_BHTK.shape[:3], v_BGSV.shape[3])
        queries = min(options.queries, T)
        k, v = (x.to(q_BHTK.dtype) for x in (k_BGSK, v_BGSV))
        with torch.no_grad():
            lists = tree_topk(
                q_BHTK, k, offset_B, options.budget // options.keys, queries, options.keys, options.stride
            )
        return sparse_attention(q_BHTK, k, v, lists, offset_B, queries, options.keys, options.window, options.sinks)[0]

    def scores(self, heads: int, length: int) -> int:
        """Products of a query and a key for a whole sequence: those of the search, and those of the softmax."""
        options = self.config
        queries, blocks = min(options.queries, max(length, 1)), options.budget // options.keys
        searched = evaluations(heads, length, [0], blocks, queries, options.keys, options.stride)
        most = options.budget + options.window + options.sinks
        return searched + heads * sum(min(at + 1, most) for at in range(length))
