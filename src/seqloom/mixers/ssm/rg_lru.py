"""RG-LRU: a diagonal recurrence whose decay and input are gated by the input, and Griffin's block around it.

    r_t = sigmoid(W_r u_t + b_r)    i_t = sigmoid(W_i u_t + b_i)    log a_t = -c r_t softplus(L)
    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * u_t)

    block:  u = conv(W_u x + b_u)    y = W_y (gelu(W_g x + b_g) * h) + b_y

The gates are block-diagonal maps. At the first position of a sequence a = 0 and the factor before the input is 1: there
is nothing to blend with. The slope of the root is infinite at a = 1, so that it is bounded there, as in the authors'
code; decays are float32 or wider. At the start exp(-softplus(L)) lies in ``decay``, as in that code; the paper says
so of its c-th power, with which the gates' correlation with their inputs adds up over thousands of positions.

Shapes: B batch, T time, D width, H channels of the recurrence, K inputs that the convolution keeps.
Source: De et al., "Griffin: mixing gated linear recurrences with local attention for efficient language models", 2024,
arXiv:2402.19427, sections 2.3 and 2.4 and appendix A.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, softplus

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.linear_scan import linear_scan
from seqloom.kernels.short_conv import short_conv
from seqloom.layers.block_linear import BlockLinear
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits

STEEPEST = 1000.0
"""Largest slope of the square root in the backward pass."""


class RGLRU(Mixer):
    """Real-gated linear recurrent unit; its state is one number a channel and the convolution's last inputs."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position."""

        h_BH: Tensor
        inputs_BKH: Tensor
        """What the convolution still sees; K = 0 where there is none."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the RG-LRU and of its block."""

        block: bool = True
        """Griffin's block: maps in and out, a convolution before the recurrence, a GELU branch beside it."""
        hidden: int = 0
        """Channels of the recurrence; 0 = the width. Without the block only 0."""
        conv: int = 4
        """Taps of the block's convolution; 1 = none."""
        heads: int = 4
        """Diagonal blocks of the two gates; must divide the channels."""
        sharpness: float = 8.0
        """The constant c: how far a gate moves the decay."""
        decay: tuple[float, float] = (0.9, 0.999)
        """Range of exp(-softplus(L)) at the start, uniform in its square; the open gate takes its c-th power."""

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
            cls.Config(block=False, heads=2),
            cls.Config(hidden=12, conv=1, heads=1, sharpness=2.0),
            cls.Config(hidden=6, conv=2, heads=3, decay=(0.5, 0.5)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        self._refuse(options)
        self.hidden = H = options.hidden or width
        if options.block:
            self.gate, self.into, self.output = Linear(width, H), Linear(width, H), Linear(H, width)
            if options.conv > 1:
                reach = options.conv**-0.5
                self.conv_weight = nn.Parameter(torch.empty(H, options.conv).uniform_(-reach, reach))
                self.conv_bias = nn.Parameter(torch.zeros(H))
        self.recurrence_gate, self.input_gate = (BlockLinear(H, options.heads) for _ in range(2))
        low, high = options.decay
        square_H = torch.empty(H, dtype=torch.float64).uniform_(low**2, high**2)
        self.decay_logit = nn.Parameter((-0.5 * square_H.log()).expm1().log().float())

    @property
    def wide(self) -> torch.dtype:
        """Dtype of decays and states."""
        return torch.promote_types(self.decay_logit.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        new = self.decay_logit.new_zeros
        return self.State(
            h_BH=new(batch, self.hidden, dtype=self.wide),
            inputs_BKH=new(batch, self._kept(), self.hidden, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def param_groups(self) -> list[ParamGroup]:
        """Decays get no weight decay, which would pull them towards one half."""
        return [ParamGroup(names=("decay_logit",), weight_decay=0.0)]

    def mix(
        self, x_BTD: Tensor, state: BaseState | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, BaseState | None]:
        """Run the recurrence over the columns, within the block where there is one."""
        length = x_BTD.shape[1]
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        u_BTH, inputs_BKH = (self.into(x_BTD) if self.config.block else x_BTD), before.inputs_BKH
        if self._kept():
            u_BTH, inputs_BKH = self._convolve(u_BTH, inputs_BKH, layout)
        y_BTH, h_BH = self._recur(u_BTH, before, layout)
        y_BTD = y_BTH.to(u_BTH.dtype)
        if self.config.block:
            y_BTD = self.output(gelu(self.gate(x_BTD), approximate="tanh") * y_BTD)
        if state is None:
            return y_BTD, None
        length_B = layout.advance(before.length_B, length)
        return y_BTD, replace(before, h_BH=h_BH, inputs_BKH=inputs_BKH, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """The maps, the gates, the convolution and the recurrence."""
        H = self.hidden
        macs = 2 * self.input_gate.weight.numel() + H
        if self.config.block:
            macs += 3 * H * self.width + (H * self.config.conv if self._kept() else 0)
        return 2 * length * macs

    def state_bytes(self, length: int) -> int:
        """One number a channel, the inputs that the convolution keeps, and the length."""
        return (1 + self._kept()) * self.hidden * self.wide.itemsize + 8

    def _kept(self) -> int:
        return self.config.conv - 1 if self.config.block else 0

    def _refuse(self, options: Config) -> None:
        """Options that mean nothing."""
        low, high = options.decay
        if options.hidden < 0 or (options.hidden and not options.block):
            raise ConfigError(f"hidden must be 0 (the width), or more within the block, not {options.hidden}")
        if options.conv < 1:
            raise ConfigError(f"conv must be at least 1 (no convolution), not {options.conv}")
        if options.sharpness <= 0:
            raise ConfigError(f"sharpness must be positive, not {options.sharpness}")
        if not 0 < low <= high < 1:
            raise ConfigError(f"decay must be a range within 0..1, ends excluded, low first, not {options.decay}")

    def _convolve(self, u_BTH: Tensor, inputs_BKH: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        with torch.autocast(u_BTH.device.type, enabled=False):
            weight_HK, bias_H = self.conv_weight.to(u_BTH.dtype), self.conv_bias.to(u_BTH.dtype)
            return short_conv(u_BTH, weight_HK, bias_H, inputs_BKH, layout.segments_BT(), layout.lengths_B)

    def _recur(self, u_BTH: Tensor, before: Any, layout: Layout) -> tuple[Tensor, Tensor]:
        r_BTH, i_BTH = self.recurrence_gate(u_BTH), self.input_gate(u_BTH)
        with torch.autocast(u_BTH.device.type, enabled=False):
            rate_H = -self.config.sharpness * softplus(self.decay_logit.to(self.wide))
            log_a_BTH = rate_H * r_BTH.to(self.wide).sigmoid()
            valid_BT = layout.valid_BT(u_BTH.shape[1])
            if valid_BT is not None:
                log_a_BTH = log_a_BTH.masked_fill(~valid_BT[..., None], 0)  # a pad keeps the state
            first_BT = _first(before.length_B, layout, u_BTH.shape[1])
            log_a_BTH = log_a_BTH.masked_fill(first_BT[..., None], -torch.inf)  # a = 0, and all of the input
            gated_BTH = i_BTH.to(self.wide).sigmoid() * u_BTH.to(self.wide)
            share_BTH = _share(log_a_BTH)  # type: ignore[not-callable]  (torch annotates what may be a list)
            return linear_scan(log_a_BTH.exp(), share_BTH * gated_BTH, before.h_BH)


class _Share(torch.autograd.Function):
    """sqrt(1 - a^2) from log a, exact where a is near 1, the root's slope bounded."""

    @staticmethod
    def forward(log_a: Tensor) -> Tensor:
        return torch.expm1(2 * log_a).neg_().sqrt_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[bad-override]  (torch leaves it untyped)
        (slope,) = grads
        (root,) = ctx.saved_tensors
        steep = (2 * root).clamp_min(1 / STEEPEST)  # d root / d (1 - a^2) is its inverse
        return slope * (2 * (root.square() - 1) / steep)


@torch.compiler.allow_in_graph  # dynamo would instantiate the Function, which torch itself deprecates
def _share(log_a: Tensor) -> Tensor:
    return _Share.apply(log_a)


def _first(length_B: Tensor, layout: Layout, length: int) -> Tensor:
    """True where a sequence begins: at starts, and in the first column of rows that have seen nothing."""
    column_T = torch.arange(length, device=length_B.device)
    first_BT = (column_T == 0) & (length_B == 0)[:, None]
    return first_BT if layout.starts_BT is None else first_BT | layout.starts_BT
