"""Retention: linear attention that forgets at a fixed pace, another one in every head.

    q, k, v = turn(W_q x), turn(W_k x), W_v x        g_h = 1 - 2^(-5-h),  h = 0, 1, ...
    S_t = g_h S_{t-1} + k_t v_t^T                    o_t = S_t^T q_t / sqrt(K)
    y_t = W_o [norm(o_t) * silu(W_r x_t)]            (the norm of each head by itself)

The turn is by the position (rotary), so that o_t depends on distances alone; with the decay it is the paper's xPos. The
paper also divides scores by their sums, which the norm behind takes out again (but for its eps): left out here, and
with it the only place where the whole, its chunks and its steps would need different sums.

Decided here: pairs turn at the wave lengths of RoFormer, theta^(-2i/K); the authors' code spaces the same range with
both ends included. The norm has gains (and biases), shared by the heads.

Shapes: B batch (1 where all rows agree), T time, D width, H heads, K key width of a head, V value width of a head.
Source: Sun, Dong, Huang, Ma, Xia, Xue, Wang, Wei, "Retentive network: a successor to transformer for large language
models", 2023, arXiv:2307.08621, section 2.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import silu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.layers.linear import Linear
from seqloom.layers.norm import Norm
from seqloom.layers.rotary import Rotary
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.attention._decayed import decayed


class Retention(Mixer):
    """Linear attention with a constant decay a head; its state is one matrix a head."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position; keys are turned by the positions where they stood."""

        s_BHKV: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of retention."""

        heads: int = 4
        """Heads, each with a pace of its own; must divide the width and the channels of the values."""
        value_factor: float = 2.0
        """Channels of all values as a multiple of the width."""
        decay: float = 5.0
        """Head h multiplies by 1 - 2^-(decay + h) at every position."""
        rotary: Rotary.Config | None = Rotary.Config(pairs="interleaved")
        """How positions turn queries and keys; None = not at all."""
        norm: Literal["layer", "rms"] = "layer"
        """Norm of every head: the paper's group norm, or without a mean as in the authors' later code."""
        eps: float = 1e-5
        """Added to the variance in the norm."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state, starts a segment by itself."""
        return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state", packing="native")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(heads=2, value_factor=1.0, norm="rms", rotary=None, decay=1.0),
            cls.Config(heads=1, value_factor=1.5, rotary=Rotary.Config(theta=100.0)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, in this order."""
        super().__init__(width, config)
        options = self.config
        values = int(width * options.value_factor)
        if options.heads < 1 or width % options.heads or values < 1 or values % options.heads:
            raise ConfigError(
                f"retention: heads must divide the width {width} and the {values} channels of the values "
                f"(value_factor {options.value_factor}), and {options.heads} does not"
            )
        if options.decay <= 0:
            raise ConfigError(f"retention: decay must be positive, not {options.decay}")
        if options.norm not in ("layer", "rms"):
            raise ConfigError(f"retention: norm is 'layer' or 'rms', not {options.norm!r}")
        self.head_width, self.values = width // options.heads, values
        self.qkv = Linear(width, 2 * width + values, bias=False)
        self.rotary = None if options.rotary is None else Rotary(self.head_width, options.rotary)
        self.gate = Linear(width, values, bias=False)
        self.norm = Norm(values // options.heads, Norm.Config(kind=options.norm, eps=options.eps))
        self.out = Linear(values, width, bias=False)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of decays and states."""
        return torch.promote_types(self.out.weight.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        H = self.config.heads
        shape = (batch, H, self.head_width, self.values // H)
        return self.State(s_BHKV=self.out.weight.new_zeros(shape, dtype=self.wide), length_B=self.no_length(batch))

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, turn, decay and sum, norm, gate, project."""
        length, heads = x_BTD.shape[1], (self.config.heads, -1)
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)  # so that k = v = 0 there
        qkv_BTE = self.qkv(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q, k, v = (x.unflatten(-1, heads) for x in qkv_BTE.split([self.width, self.width, self.values], -1))
            if self.rotary is not None:
                where_BT = self._where(length, state, layout)
                q, k = self.rotary(q, where_BT), self.rotary(k, where_BT)
            log_decay_BTH1 = self._log_decay(valid_BT)
            before_BHKV = None if state is None else state.s_BHKV
            o_BTHV, s_BHKV = decayed(q * self.head_width**-0.5, k, v, log_decay_BTH1, before_BHKV, layout)
            o_BTV = self.norm(o_BTHV).flatten(2)
        y_BTD = self.out(o_BTV * silu(self.gate(x_BTD)))
        if state is None:
            return y_BTD, None
        return y_BTD, replace(state, s_BHKV=s_BHKV, length_B=layout.advance(state.length_B, length), trail=None)

    def flops(self, length: int) -> int:
        """The maps, and per position the matrices written and read."""
        weights = self.qkv.weight.numel() + self.gate.weight.numel() + self.out.weight.numel()
        return 2 * length * (weights + 2 * self.head_width * self.values)

    def state_bytes(self, length: int) -> int:
        """One matrix a head, and the length."""
        return self.head_width * self.values * self.wide.itemsize + 8

    def _where(self, length: int, state: Any, layout: Layout) -> Tensor:
        """Positions (B or 1, T), counted on from the state."""
        device = self.out.weight.device
        if state is None and layout.starts_BT is None and layout.positions_BT is None:
            return torch.arange(length, device=device)[None]
        rows = 1 if layout.starts_BT is None else len(layout.starts_BT)
        return layout.where_BT(length, self.no_length(rows) if state is None else state.length_B)

    def _log_decay(self, valid_BT: Tensor | None) -> Tensor:
        """Once for all positions (1, 1, H, 1); with pads, which hold the state, one at each (B, T, H, 1)."""
        head_H = torch.arange(self.config.heads, device=self.out.weight.device, dtype=self.wide)
        log_decay_H1 = torch.log1p(-torch.exp2(-self.config.decay - head_H))[:, None]
        return log_decay_H1[None, None] if valid_BT is None else valid_BT[..., None, None] * log_decay_H1
