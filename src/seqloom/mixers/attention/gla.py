"""Gated linear attention: a matrix of keys and values of which every key channel forgets as the input says.

    q, k, v = W_q x, W_k x, W_v x          log a = logsigmoid(W_2 W_1 x + b) / c          (one number a key channel)
    S_t = diag(a_t) S_{t-1} + k_t v_t^T    o_t = S_t^T q_t / sqrt(K)
    y_t = W_o [rms(o_t) * silu(W_r x_t)]   (the norm of each head by itself)

The temperature c = 16 keeps decays near one: a gate that is half open multiplies by 2^(-1/16). Decays and states are
float32 or wider. With ``conv`` above one, q, k and v first pass a short convolution and SiLU, as in the authors' code.

Shapes: B batch, T time, D width, H heads, K key width of a head, V value width of a head, E = H (2 K + V) channels of
queries, keys and values, W inputs that the convolution keeps.
Source: Yang, Wang, Shen, Panda, Kim, "Gated linear attention transformers with hardware-efficient training", 2023,
arXiv:2312.06635, section 4; the short convolution follows the authors' later code.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, silu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.layers.linear import Linear
from seqloom.layers.norm import Norm
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.attention._decayed import Taps, decayed


class GLA(Mixer):
    """Linear attention with a decay for every key channel; its state is one matrix a head."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position."""

        s_BHKV: Tensor
        inputs_BWE: Tensor
        """What the convolution still sees; W = 0 where there is none."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of gated linear attention."""

        heads: int = 4
        """Heads; must divide the channels of keys and those of values."""
        key_factor: float = 0.5
        """Channels of all queries, and of all keys, as a multiple of the width."""
        value_factor: float = 1.0
        """Channels of all values as a multiple of the width."""
        low_rank: int = 16
        """Rank of the map that makes the decays."""
        temperature: float = 16.0
        """The constant c: the larger, the nearer to one all decays are."""
        conv: int = 1
        """Taps of a convolution over queries, keys and values, SiLU behind it; 1 = neither."""
        eps: float = 1e-5
        """Added to the mean square in the norm."""

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
            cls.Config(heads=2, key_factor=1.0, value_factor=2.0, low_rank=3, temperature=4.0, conv=3),
            cls.Config(heads=1, conv=4),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, in this order."""
        super().__init__(width, config)
        options = self.config
        for name in ("heads", "low_rank", "conv"):
            if getattr(options, name) < 1:
                raise ConfigError(f"gla: {name} must be at least 1, not {getattr(options, name)}")
        if options.temperature <= 0:
            raise ConfigError(f"gla: temperature must be positive, not {options.temperature}")
        self.keys = _head_channels(width, "key_factor", options.key_factor, options.heads)
        self.values = _head_channels(width, "value_factor", options.value_factor, options.heads)
        channels = 2 * self.keys + self.values
        self.qkv = Linear(width, channels, bias=False)
        self.conv = Taps(channels, options.conv, bias=False) if options.conv > 1 else None
        self.low = Linear(width, options.low_rank, bias=False)
        self.decay = Linear(options.low_rank, self.keys)
        self.gate = Linear(width, self.values, bias=False)
        self.norm = Norm(self.values // options.heads, Norm.Config(kind="rms", eps=options.eps))
        self.out = Linear(self.values, width, bias=False)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of decays and states."""
        return torch.promote_types(self.out.weight.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        new, H = self.out.weight.new_zeros, self.config.heads
        return self.State(
            s_BHKV=new(batch, H, self.keys // H, self.values // H, dtype=self.wide),
            inputs_BWE=new(batch, self.config.conv - 1, 2 * self.keys + self.values, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, decay and sum, norm, gate, project."""
        length, heads = x_BTD.shape[1], (self.config.heads, -1)
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)  # so that k = v = 0 there
        qkv_BTE, inputs_BWE = self.qkv(x_BTD), None if state is None else state.inputs_BWE
        if self.conv is not None:
            qkv_BTE, inputs_BWE = self.conv(qkv_BTE, inputs_BWE, layout)
        logits_BTK = self.decay(self.low(x_BTD))
        with torch.autocast(x_BTD.device.type, enabled=False):
            q, k, v = (x.unflatten(-1, heads) for x in qkv_BTE.split([self.keys, self.keys, self.values], -1))
            log_decay_BTK = logsigmoid(logits_BTK.to(self.wide)) / self.config.temperature
            if valid_BT is not None:
                log_decay_BTK = log_decay_BTK.masked_fill(~valid_BT[..., None], 0)  # a pad holds the state
            before_BHKV, scale = None if state is None else state.s_BHKV, (self.keys // heads[0]) ** -0.5
            o_BTHV, s_BHKV = decayed(q * scale, k, v, log_decay_BTK.unflatten(-1, heads), before_BHKV, layout)
            o_BTV = self.norm(o_BTHV).flatten(2)
        y_BTD = self.out(o_BTV * silu(self.gate(x_BTD)))
        if state is None:
            return y_BTD, None
        length_B = layout.advance(state.length_B, length)
        return y_BTD, replace(state, s_BHKV=s_BHKV, inputs_BWE=inputs_BWE, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """The maps, the convolution, and per position the matrices written and read."""
        maps = (self.qkv, self.low, self.decay, self.gate, self.out)
        macs = sum(layer.weight.numel() for layer in maps) + 2 * self.keys * self.values // self.config.heads
        return 2 * length * (macs + (0 if self.conv is None else self.conv.weight.numel()))

    def state_bytes(self, length: int) -> int:
        """One matrix a head, the inputs that the convolution keeps, and the length."""
        kept = (self.config.conv - 1) * (2 * self.keys + self.values)
        return (self.keys * self.values // self.config.heads + kept) * self.wide.itemsize + 8


def _head_channels(width: int, name: str, factor: float, heads: int) -> int:
    """Channels of all heads together; ConfigError where the heads do not divide them."""
    channels = int(width * factor)
    if channels < 1 or channels % heads:
        raise ConfigError(f"{name} = {factor} of the width {width} is {channels} channels for {heads} heads")
    return channels
