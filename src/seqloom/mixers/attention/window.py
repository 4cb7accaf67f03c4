"""Sliding-window attention with a state of fixed size: each position sees itself, the nearest before it, and the sinks.

    o_t = sum over s in {t - window + 1 .. t} and {0 .. sinks - 1} of softmax_s(q_t . k_s / sqrt(K)) v_s

``attention`` with ``window`` computes the same (without sinks) but keeps every key; here a step costs and remembers the
same at position one million as at position ``window``. Positions are those of the sequence, for sinks too.

Shapes: B batch, T time, D width, H query heads, G key heads, K head width, W = window - 1 slots, Z sinks.
Source: Beltagy et al., "Longformer", 2020, arXiv:2004.05150, section 3.1; sinks: Xiao et al., "Efficient streaming
language models with attention sinks", 2023, arXiv:2309.17453, section 3.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.block_attention import block_attention, seen_pairs
from seqloom.kernels.sparse_attention import sparse_attention
from seqloom.layers.linear import Linear
from seqloom.layers.rotary import Rotary
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.attention._recent import Recent


class Window(Mixer):
    """Attention over the nearest positions and the first ones, in constant memory."""

    @dataclass(frozen=True, kw_only=True)
    class State(Recent):
        """The window, and the first keys of the sequence."""

        k_BGZK: Tensor
        v_BGZK: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Heads, and how far they see."""

        heads: int = 4
        """Query heads."""
        kv_heads: int = 0
        """Key and value heads, a divisor of ``heads``; 0 = as many."""
        window: int = 64
        """Positions that are seen, the own one included."""
        sinks: int = 0
        """First positions of the sequence, which are seen for ever."""
        rotary: Rotary.Config | None = Rotary.Config()
        """How queries and keys carry their positions; None = not at all."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact; a state that stops growing."""
        return Traits(causal="exact", step="window", rollback="recorded", sequence_comm="state")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (cls.Config(), cls.Config(kv_heads=2, window=4, sinks=2), cls.Config(heads=2, window=1, rotary=None))

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, in this order."""
        super().__init__(width, config)
        options = self.config
        self.heads, self.groups = options.heads, options.kv_heads or options.heads
        if self.heads < 1 or self.groups < 1 or self.heads % self.groups or width % self.heads:
            raise ConfigError(
                f"window: {self.groups} key heads, {self.heads} heads and the width {width} do not divide"
            )
        if options.window < 1 or options.sinks < 0:
            raise ConfigError(
                f"window: window must be at least 1 and sinks 0, not {options.window} and {options.sinks}"
            )
        self.head_width = width // self.heads
        self.qkv = Linear(width, (self.heads + 2 * self.groups) * self.head_width, bias=False)
        self.rotary = None if options.rotary is None else Rotary(self.head_width, options.rotary)
        self.out = Linear(width, width, bias=False)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> Recent:
        """Zeros that nobody sees."""
        new, length_B = self.qkv.weight.new_zeros, self.no_length(batch)
        near, first = ((batch, self.groups, n, self.head_width) for n in (self.config.window - 1, self.config.sinks))
        return self.State(
            length_B=length_B,
            k_BGWK=new(near),
            v_BGWV=new(near),
            entered_B=length_B.clone(),
            k_BGZK=new(first),
            v_BGZK=new(first),
        )

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, Any]:
        """Project, look back, and keep the latest."""
        (B, T, _), options = x_BTD.shape, self.config
        before_B = self.no_length(B) if state is None else state.length_B
        q, k, v = self._heads(x_BTD, layout.where_BT(T, before_B))
        valid_BT = layout.valid_BT(T)
        if valid_BT is not None:  # nobody sees a pad, yet a weight of zero times NaN is NaN
            k, v = (x.masked_fill(~valid_BT[:, None, :, None], 0) for x in (k, v))
        if state is None:
            return self._whole(q, k, v, before_B), None
        old: Recent = state
        k_BGSK, v_BGSK = old.joined(k, v)
        span_BT2 = old.span(T, options.window)
        if options.sinks:
            firsts = [self._sinks(now, new, before_B) for now, new in ((state.k_BGZK, k), (state.v_BGZK, v))]
            seen_B1TS = self._seen(span_BT2, k_BGSK.shape[2], before_B)
            joined = (torch.cat([x.to(y.dtype), y], 2) for x, y in zip(firsts, (k_BGSK, v_BGSK), strict=True))
            o_BHTK = block_attention(q, *joined, seen_B1TS)[0]
            kept = [self._clean(x, before_B, T, layout) for x in firsts]
            state = replace(state, k_BGZK=kept[0].to(state.k_BGZK.dtype), v_BGZK=kept[1].to(state.v_BGZK.dtype))
        else:
            o_BHTK = block_attention(q, k_BGSK, v_BGSK, span_BT2)[0]
        count: Any = T if layout.lengths_B is None else layout.lengths_B
        after = state.push(k_BGSK, v_BGSK, count)
        length_B = layout.advance(before_B, T)
        return self.out(o_BHTK.transpose(1, 2).flatten(2)), replace(after, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """Projections, and two products for each pair that see each other; with sinks, for full windows."""
        near, first = self.config.window, self.config.sinks
        pairs = length * min(length, near + first) if first else seen_pairs(length, length, 0, near)
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        return 2 * length * weights + 4 * pairs * self.heads * self.head_width

    def state_bytes(self, length: int) -> int:
        """The window and the sinks, whatever the length, and two counts."""
        slots = self.config.window - 1 + self.config.sinks
        return 2 * slots * self.groups * self.head_width * self.qkv.weight.element_size() + 16

    def _heads(self, x_BTD: Tensor, where_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        H, G = self.heads, self.groups
        x_BTNK = self.qkv(x_BTD).unflatten(2, (H + 2 * G, self.head_width))
        qk_BTNK, v_BTGK = x_BTNK[:, :, : H + G], x_BTNK[:, :, H + G :]
        if self.rotary is not None:
            qk_BTNK = self.rotary(qk_BTNK, where_BT)
        return qk_BTNK[:, :, :H].transpose(1, 2), qk_BTNK[:, :, H:].transpose(1, 2), v_BTGK.transpose(1, 2)

    def _whole(self, q: Tensor, k: Tensor, v: Tensor, before_B: Tensor) -> Tensor:
        options = self.config
        if options.sinks:
            lists = before_B.new_full((len(q), 1, q.shape[2], 0), -1)
            o_BHTK = sparse_attention(q, k, v, lists, before_B, 1, 1, options.window, options.sinks)[0]
        else:
            o_BHTK = block_attention(q, k, v, None, 0, options.window)[0]
        return self.out(o_BHTK.transpose(1, 2).flatten(2))

    def _sinks(self, now_BGZK: Tensor, new_BGTK: Tensor, before_B: Tensor) -> Tensor:
        """The first keys with those that have just come."""
        slot_Z = torch.arange(self.config.sinks, device=before_B.device)
        column_BZ = slot_Z - before_B[:, None]
        fresh_BZ = (column_BZ >= 0) & (column_BZ < new_BGTK.shape[2])
        index = column_BZ.clamp(0, new_BGTK.shape[2] - 1)[:, None, :, None].expand(
            -1, new_BGTK.shape[1], -1, self.head_width
        )
        return torch.where(fresh_BZ[:, None, :, None], new_BGTK.gather(2, index), now_BGZK.to(new_BGTK.dtype))

    def _clean(self, x_BGZK: Tensor, before_B: Tensor, length: int, layout: Layout) -> Tensor:
        """Zeros where no position is yet: pads were no positions."""
        after_B1 = layout.advance(before_B, length)[:, None]
        slot_Z = torch.arange(self.config.sinks, device=before_B.device)
        return torch.where((slot_Z < after_B1)[:, None, :, None], x_BGZK, 0)

    def _seen(self, span_BT2: Tensor, slots: int, before_B: Tensor) -> Tensor:
        """Which of the sinks and slots each new column sees (B, 1, T, Z + S); a sink in the window counts there."""
        device, kept = before_B.device, self.config.window - 1
        near = torch.arange(slots, device=device)
        near_BTS = (near >= span_BT2[..., :1]) & (near < span_BT2[..., 1:])
        first_position_BT = before_B[:, None] - kept + span_BT2[..., 0]
        sink_BTZ = torch.arange(self.config.sinks, device=device) < first_position_BT[..., None]
        return torch.cat([sink_BTZ, near_BTS], -1)[:, None]
