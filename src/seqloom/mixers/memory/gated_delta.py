"""Gated DeltaNet: a matrix memory that looks up what a key holds and writes only what is new.

    q, k, v = silu(conv(W x))      q, k of length one a head, q / sqrt(K)      b = sigmoid(W_b x)
    a = exp(-exp(L) softplus(W_a x + c))
    S <- a S      S <- S + b k (v - S^T k)^T      o = S^T q      y = W_o [rms(o) * silu(W_z x)]

A linear attention adds what it is told; this one first reads, so that a key that comes again replaces its value
instead of adding to it. Without the decay it is DeltaNet.

Shapes: B batch, T time, D width, H heads, K key, V value, E channels of queries, keys and values, W taps less one.
Source: Yang, Kautz and Hatamizadeh, "Gated delta networks: improving Mamba2 with delta rule", 2024, arXiv:2412.06464,
section 3; ``negative``: Grazzi et al., "Unlocking state-tracking in linear RNNs through negative eigenvalues", 2024,
arXiv:2411.12537.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.layers.linear import Linear
from seqloom.layers.norm import Norm
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._decayed import Taps
from seqloom.mixers.memory._rules import Sizes, Writing


class GatedDelta(Mixer):
    """The gated delta rule within its block; its state is one matrix a head and the convolution's inputs."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position, float32 or wider."""

        s_BHKV: Tensor
        inputs_BWE: Tensor
        """What the convolution still sees; W = 0 where there is none."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the gated delta rule."""

        heads: int = 4
        """Heads; must divide the channels of keys and those of values."""
        key_factor: float = 1.0
        """Channels of all queries, and of all keys, as a multiple of the width."""
        value_factor: float = 1.0
        """Channels of all values as a multiple of the width."""
        decay: bool = True
        """Forget as the input says; False is DeltaNet."""
        negative: bool = False
        """Let b reach 2: a state can then be turned around, which parity and other tracking needs."""
        conv: int = 4
        """Taps of the convolution over queries, keys and values; 1 sees the position alone."""
        gate: bool = True
        """Multiply the normalised output by silu of a map of the input."""
        eps: float = 1e-6
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
            cls.Config(heads=2, key_factor=0.5, value_factor=1.5, conv=2),
            cls.Config(heads=1, decay=False, negative=True, gate=False, conv=1),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, one the gates, each in this order: b, then the step of a."""
        super().__init__(width, config)
        options = self.config
        self.sizes = Sizes.of("gated_delta", width, options.heads, (options.key_factor, options.value_factor))
        rule = "gated_delta" if options.decay else "delta"
        self.writing = Writing(rule, self.sizes, negative=options.negative)
        keys, values = self.sizes.keys, self.sizes.values
        self.qkv = Linear(width, 2 * keys + values, bias=False)
        self.conv = Taps(2 * keys + values, options.conv, bias=False)
        self.gates = Linear(width, self.sizes.gates(rule), bias=False)
        self.gate = Linear(width, values, bias=False) if options.gate else None
        self.norm = Norm(values // options.heads, Norm.Config(kind="rms", eps=options.eps))
        self.out = Linear(values, width, bias=False)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of gates and states."""
        return torch.promote_types(self.out.weight.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        new, sizes = self.out.weight.new_zeros, self.sizes
        H = sizes.heads
        return self.State(
            s_BHKV=new(batch, H, sizes.keys // H, sizes.values // H, dtype=self.wide),
            inputs_BWE=new(batch, self.config.conv - 1, 2 * sizes.keys + sizes.values, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def param_groups(self) -> list[ParamGroup]:
        """Rates and step sizes get no weight decay, which would pull them to other time scales."""
        return [ParamGroup(names=("writing.rate_log", "writing.step_bias"))] if self.config.decay else []

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, convolve, write and read, norm, gate, project."""
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        valid_BT = layout.valid_BT(x_BTD.shape[1])
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        inputs_BWE = None if state is None else state.inputs_BWE
        qkv_BTE, inputs_BWE = self.conv(self.qkv(x_BTD), inputs_BWE, layout)
        gates_BTA = self.gates(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q, k, v = qkv_BTE.split([self.sizes.keys, self.sizes.keys, self.sizes.values], -1)
            segments_BT, lengths_B = layout.segments_BT(), layout.lengths_B
            o_BTHV, s_BHKV = self.writing(q, k, v, gates_BTA, before.s_BHKV, segments_BT, lengths_B)
            o_BTV = self.norm(o_BTHV).flatten(2).to(x_BTD.dtype)
        y_BTD = self.out(o_BTV if self.gate is None else o_BTV * silu(self.gate(x_BTD)))
        if state is None:
            return y_BTD, None
        length_B = layout.advance(state.length_B, x_BTD.shape[1])
        return y_BTD, replace(state, s_BHKV=s_BHKV, inputs_BWE=inputs_BWE, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """The maps, the convolution, and per position the matrices read, corrected and read."""
        maps = [layer for layer in (self.qkv, self.gates, self.gate, self.out, self.conv) if layer is not None]
        return 2 * length * (sum(layer.weight.numel() for layer in maps) + self.sizes.macs(self.writing.rule))

    def state_bytes(self, length: int) -> int:
        """One matrix a head, the inputs that the convolution keeps, and the length."""
        sizes = self.sizes
        kept = (self.config.conv - 1) * (2 * sizes.keys + sizes.values)
        return (sizes.keys * sizes.values // sizes.heads + kept) * self.wide.itemsize + 8
