"""Linformer: keys and values of the whole sequence mixed down to a fixed number before attention looks at them.

    K' = E K      V' = F V      o_t = softmax(q_t K'^T / sqrt(K)) V'

E and F (M x L) mix positions, so that every query sees M mixtures of all positions: linear in the length, not causal,
and bound to the length L for which they were made; shorter sequences use their first columns.

Shapes: B batch, T time, D width, H heads, K head width, L longest length, M mixtures.
Source: Wang, Li, Khabsa, Fang, Ma, "Linformer: self-attention with linear complexity", 2020, arXiv:2006.04768,
section 4.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State
from seqloom.kernels.block_attention import block_attention
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, Traits


class Linformer(Mixer):
    """Attention over learned mixtures of all positions."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Heads, mixtures and the longest sequence."""

        heads: int = 4
        """Heads; must divide the width."""
        mixtures: int = 64
        """Mixtures of keys, and of values, that a query sees."""
        longest: int = 1024
        """The longest sequence."""
        share: Literal["none", "heads", "kv"] = "heads"
        """Who has mixing weights of their own: every head ("none"), keys and values ("heads"), or nobody ("kv")."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Sees everything, and cannot continue."""
        return Traits(
            causal="no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="native",
            length_bound=config.longest,
            known_gaps={"initial_scale": "short sequences use the first columns of the mixing weights, as published"},
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Each way of sharing."""
        return (
            cls.Config(),
            cls.Config(heads=2, mixtures=3, longest=150, share="none"),
            cls.Config(mixtures=5, longest=150, share="kv"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Mixing weights are uniform with variance 1 / L, so that mixtures are about as large as what they mix."""
        super().__init__(width, config)
        options = self.config
        if options.heads < 1 or width % options.heads:
            raise ConfigError(f"linformer: {options.heads} heads do not divide the width {width}")
        if min(options.mixtures, options.longest) < 1:
            raise ConfigError(f"linformer: mixtures and longest must be positive, not {options}")
        if options.share not in ("none", "heads", "kv"):
            raise ConfigError(f"linformer: share is none, heads or kv, not {options.share!r}")
        self.qkv = Linear(width, 3 * width, bias=False)
        own = {"none": options.heads, "heads": 1, "kv": 1}[options.share]
        bound = (3 / options.longest) ** 0.5
        shape = (1 if options.share == "kv" else 2, own, options.mixtures, options.longest)
        self.mixing = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.out = Linear(width, width, bias=False)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, State | None]:
        """Project, mix positions down, look."""
        T, H = x_BTD.shape[1], self.config.heads
        q, k, v = self.qkv(x_BTD).unflatten(2, (3, H, -1)).permute(2, 0, 3, 1, 4)
        valid_BT = layout.valid_BT(T)
        if valid_BT is not None:
            k, v = (x.masked_fill(~valid_BT[:, None, :, None], 0) for x in (k, v))
        mixing = self.mixing[..., :T].to(k.dtype)
        k, v = mixing[0] @ k, mixing[-1] @ v
        o_BHTK = block_attention(q, k, v)[0]
        return self.out(o_BHTK.transpose(1, 2).flatten(2)), None

    def flops(self, length: int) -> int:
        """Projections, mixing, and every query with every mixture."""
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        return 2 * length * (weights + 4 * self.width * self.config.mixtures)
