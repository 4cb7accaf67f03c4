"""Softmax attention over the whole past, a window of it, or the whole sequence.

    o_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s  over the keys s that t may see      y_t = W_o [o_t of all heads]

With fewer key heads than query heads (grouped queries), head h reads key head h // (H / G). Positions enter by turning
q and k (rotary). The state is a key-value cache; the log-sum-exp form of the kernel makes blocks of keys mergeable, so
that the keys may lie on other devices.

Shapes: B batch, T time, S keys, D width, H query heads, G key heads, K head width.
Source: Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762, section 3.2; Ainslie et al., "GQA", 2023,
arXiv:2305.13245; Beltagy et al., "Longformer", 2020, arXiv:2004.05150, section 3.1 (window).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.protocols import Exchange
from seqloom.kernels.block_attention import block_attention, seen_pairs
from seqloom.layers.linear import Linear
from seqloom.layers.norm import Norm
from seqloom.layers.rotary import Rotary
from seqloom.layers.tree_attention import TreeAttention
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.attention._cache import Cache
from seqloom.mixers.attention._masks import segment_bounds, span, tree_mask
from seqloom.mixers.attention._segmentwise import by_segment


class Attention(Mixer):
    """Softmax attention with grouped queries, rotary positions, an optional window and a key-value cache."""

    State = Cache

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Heads, what a position sees, and how it knows where it is."""

        heads: int = 4
        """Query heads."""
        kv_heads: int = 0
        """Key and value heads, a divisor of ``heads``; 0 = as many."""
        head_width: int = 0
        """Channels of one head; 0 = width / heads."""
        window: int = 0
        """A position sees itself and window - 1 before it (and as many after it if not causal); 0 = all."""
        causal: bool = True
        """False lets every position see the whole sequence; then there is no state."""
        rotary: Rotary.Config | None = Rotary.Config()
        """How queries and keys carry their positions; None = not at all (the model adds positions itself)."""
        qkv_bias: bool = False
        """Biases of queries, keys and values (GPT-2, Qwen2)."""
        out_bias: bool = False
        """Bias of the output (GPT-2)."""
        qk_norm: bool = False
        """RMS-normalise each head's queries and keys before they turn (Qwen3)."""
        sparse: TreeAttention.Config | None = None
        """Outside training, look only where a tree search points (HiP); None = at everything."""

        def __post_init__(self) -> None:
            """ConfigError where a search has nothing to replace."""
            if self.sparse is not None and (self.window or not self.causal):
                raise ConfigError("attention: sparse replaces causal attention over everything, without a window")

    config: Config

    @classmethod
    def traits(cls, config: Config) -> Traits:
        """A tree or a part says who sees whom; a window counts positions, which these may repeat, so not both."""
        if not config.causal:
            return Traits(
                causal="no",
                step="none",
                rollback="none",
                sequence_comm="attention",
                bidirectional="native",
                packing="native",
            )
        if config.sparse is not None:
            return _searched(config.sparse)
        return Traits(
            causal="exact",
            step="history",
            rollback="free",
            sequence_comm="attention",
            packing="native",
            tree=config.window == 0,
        )

    @classmethod
    def grid(cls) -> tuple[Config, ...]:
        """Each option once, in combinations that meet."""
        interleaved = Rotary.Config(theta=100.0, fraction=0.7, pairs="interleaved")
        return (
            cls.Config(),
            cls.Config(kv_heads=2, window=3, qk_norm=True),
            cls.Config(heads=2, head_width=6, qkv_bias=True, out_bias=True, rotary=interleaved),
            cls.Config(heads=4, kv_heads=1, rotary=None),
            cls.Config(causal=False),
            cls.Config(causal=False, kv_heads=2, window=3),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, in this order."""
        super().__init__(width, config)
        heads, groups = self.config.heads, self.config.kv_heads or self.config.heads
        if heads < 1 or groups < 1 or heads % groups:
            raise ConfigError(f"attention: kv_heads must divide heads, not {groups} and {heads}")
        if self.config.head_width == 0 and width % heads:
            raise ConfigError(f"attention: {heads} heads do not divide the width {width}; set head_width")
        if self.config.window < 0:
            raise ConfigError(f"attention: window must be 0 or more, not {self.config.window}")
        self.heads, self.groups, self.head_width = heads, groups, self.config.head_width or width // heads
        self.qkv = Linear(width, (heads + 2 * groups) * self.head_width, bias=self.config.qkv_bias)
        self.out = Linear(heads * self.head_width, width, bias=self.config.out_bias)
        self.rotary = None if self.config.rotary is None else Rotary(self.head_width, self.config.rotary)
        norm = Norm.Config(kind="rms", eps=1e-6)
        self.sparse = None if self.config.sparse is None else self.config.sparse.build()
        self.q_norm = Norm(self.head_width, norm) if self.config.qk_norm else None
        self.k_norm = Norm(self.head_width, norm) if self.config.qk_norm else None

    def initial_state(self, batch: int, *, capacity: int | None = None) -> Cache:
        """An empty cache; with ``capacity`` slots it is written in place, beyond them it grows by doubling."""
        if not self.config.causal:
            raise ConfigError("Attention that sees the whole sequence (causal=False) cannot continue from a state")
        shape = (batch, self.groups, capacity or 0, self.head_width)
        empty = (self.qkv.weight.new_zeros(shape) for _ in range(2))
        return Cache(length_B=self.no_length(batch), k_BGLK=next(empty), v_BGLK=next(empty))

    def mix(
        self, x_BTD: Tensor, state: Cache | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, Cache | None]:
        """Project, put the new keys behind the old ones, look."""
        length = x_BTD.shape[1]
        q_BHTK, k_BGTK, v_BGTK = self._heads(x_BTD, self._where(length, len(x_BTD), state, layout))
        valid_BT = layout.valid_BT(length)
        if valid_BT is not None:  # nobody sees a pad, yet a weight of zero times NaN is NaN
            pad_B1T1 = ~valid_BT[:, None, :, None]
            k_BGTK, v_BGTK = k_BGTK.masked_fill(pad_B1T1, 0), v_BGTK.masked_fill(pad_B1T1, 0)
        if layout.exchange is not None:
            o_BHTK = self._exchanged(layout.exchange, q_BHTK, k_BGTK, v_BGTK, state, layout)
        elif state is None:
            o_BHTK = self._look(q_BHTK, k_BGTK, v_BGTK, None, layout)
        else:
            state = state.append(k_BGTK, v_BGTK, layout.parts_BT)
            k_BGSK, v_BGSK = (x[:, :, : state.filled + length].to(q_BHTK.dtype) for x in (state.k_BGLK, state.v_BGLK))
            o_BHTK = self._look(q_BHTK, k_BGSK, v_BGSK, state, layout)
            state = state.advance(layout, length)
        return self.out(o_BHTK.transpose(1, 2).flatten(2)), state

    def _where(self, length: int, batch: int, state: Cache | None, layout: Layout) -> Tensor:
        """Positions (B or 1, T); ragged and packed rows alone need one row each."""
        device = self.qkv.weight.device
        simple = layout.starts_BT is None and layout.parents_BT is None and layout.positions_BT is None
        if simple and (state is None or state.even):
            before = 0 if state is None else state.filled
            return torch.arange(before, before + length, device=device)[None]
        return layout.where_BT(length, self.no_length(batch) if state is None else state.length_B)

    def _heads(self, x_BTD: Tensor, where_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        H, G = self.heads, self.groups
        x_BTNK = self.qkv(x_BTD).unflatten(2, (H + 2 * G, self.head_width))
        qk_BTNK, v_BTGK = x_BTNK[:, :, : H + G], x_BTNK[:, :, H + G :]
        if self.q_norm is not None and self.k_norm is not None:
            qk_BTNK = torch.cat([self.q_norm(qk_BTNK[:, :, :H]), self.k_norm(qk_BTNK[:, :, H:])], 2)
        if self.rotary is not None:
            qk_BTNK = self.rotary(qk_BTNK, where_BT)
        return qk_BTNK[:, :, :H].transpose(1, 2), qk_BTNK[:, :, H:].transpose(1, 2), v_BTGK.transpose(1, 2)

    def _look(self, q: Tensor, k: Tensor, v: Tensor, state: Cache | None, layout: Layout) -> Tensor:
        """Attention over keys that begin at each row's position 0."""
        T, S, window = q.shape[2], k.shape[2], self.config.window
        ragged = state is not None and not state.even
        before_B = None if state is None else state.length_B
        if self.sparse is not None and not self.training:
            before_B = self.no_length(len(q)) if before_B is None else before_B
            if layout.starts_BT is not None:
                return by_segment(self.sparse, q, k, v, before_B, layout)
            return self.sparse(q, k, v, before_B)
        if T == 1 and state is not None and layout.plain and state.parts_BL is None and not torch.is_grad_enabled():
            return self._step(q, k, v, state)
        if layout.parents_BT is not None or layout.parts_BT is not None:
            before_B = self.no_length(len(q)) if before_B is None else before_B
            parts_BS = None if state is None else state.parts_BL
            return block_attention(q, k, v, tree_mask(layout, before_B, S, parts_BS))[0]
        if self.config.causal and not ragged and layout.starts_BT is None:
            return block_attention(q, k, v, None, S - T, window)[0]  # pads lie to the right: no query sees them
        if layout.starts_BT is None and not ragged and not window and layout.lengths_B is None:
            return block_attention(q, k, v)[0]
        before_B = self.no_length(len(q)) if before_B is None else before_B
        first_BT, stop_BT = segment_bounds(layout, before_B, T)
        return block_attention(q, k, v, span(first_BT, stop_BT, before_B, window, causal=self.config.causal))[0]

    def _step(self, q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, state: Cache) -> Tensor:
        """One new position without gradients: aten at once, since a custom op would cost more than the work."""
        window, S, seen_B11S = self.config.window, k_BGSK.shape[2], None
        if not state.even:
            at_B1 = state.length_B[:, None]
            slot_S = torch.arange(S, device=q_BH1K.device)
            seen_BS = (slot_S <= at_B1) & (slot_S > at_B1 - window) if window else slot_S <= at_B1
            seen_B11S = seen_BS[:, None, None]
        elif window and window < S:
            k_BGSK, v_BGSK = k_BGSK[:, :, S - window :], v_BGSK[:, :, S - window :]
        shared = self.groups != self.heads
        return scaled_dot_product_attention(q_BH1K, k_BGSK, v_BGSK, attn_mask=seen_B11S, enable_gqa=shared)

    def _exchanged(
        self, exchange: Exchange, q: Tensor, k: Tensor, v: Tensor, state: Cache | None, layout: Layout
    ) -> Tensor:
        """Attention over the keys of all processes, which ``layout.exchange`` brings block by block."""
        refused = {name for name in ("starts_BT", "parents_BT", "parts_BT") if getattr(layout, name) is not None}
        refused |= {"a state"} if state is not None else set()
        refused |= {"lengths_B"} if layout.lengths_B is not None and not self.config.causal else set()
        if refused:
            raise ConfigError(f"Attention cannot honour layout.exchange together with {', '.join(sorted(refused))}")
        if self.rotary is not None and layout.positions_BT is None and exchange.size > 1:
            raise ConfigError("Attention split along time (layout.exchange) needs layout.positions_BT")

        def block(q: Tensor, k: Tensor, v: Tensor, offset: int = 0) -> tuple[Tensor, Tensor]:
            """``offset`` = position of the first query, counted from the first key of this block."""
            if self.config.causal:
                return block_attention(q, k, v, None, offset, self.config.window)
            if not self.config.window:
                return block_attention(q, k, v)
            at_1T = torch.arange(q.shape[2], device=q.device)[None] + offset
            return block_attention(
                q, k, v, torch.stack([at_1T - self.config.window + 1, at_1T + self.config.window], -1)
            )

        return exchange.attend(block, q, k, v)

    def flops(self, length: int) -> int:
        """Projections of every position, and two products for each pair of positions that see each other."""
        pairs = seen_pairs(length, length, 0 if self.config.causal or self.config.window else None, self.config.window)
        if self.config.window and not self.config.causal:
            pairs = 2 * pairs - length
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        return 2 * length * weights + 4 * pairs * self.heads * self.head_width

    def state_bytes(self, length: int) -> int:
        """A key and a value a position and key head, and the row's length."""
        size = self.qkv.weight.element_size()
        return 2 * length * self.groups * self.head_width * size + torch.long.itemsize


def _searched(sparse: TreeAttention.Config) -> Traits:
    """Of attention behind a search; in training it is full attention."""
    gaps = {"flops": "the formula is that of training, which looks at everything"}
    if sparse.queries > 1:
        shared = "queries that share a list choose it together, and which ones do depends on where a call begins"
        pieces = ("continuation", "lengths", "capacity", "packing", "padding", "select", "bfloat16", "extremes")
        gaps |= dict.fromkeys(("causality", *pieces), shared)
    kinds: dict[str, Any] = {"causal": "exact", "step": "history", "rollback": "free", "packing": "native"}
    return Traits(sequence_comm="forbidden", known_gaps=gaps, **kinds)
