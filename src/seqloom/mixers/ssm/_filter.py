"""What every mixer shares that is a fixed filter of each channel: convolution, recurrence, skip, and what follows.

    y_t = sum_{l >= 0} k_l u_{t-l} + sum_{m >= 1} r_m u_{t+m} + s u_t        out = Output(y)

A mixer of this kind writes ``filters`` (its kernels at a length) and, where it can step, ``resume`` (outputs from a
state, and the next state). Kernels, states and transforms are float32 or more, whatever the autocast.
Shapes: B batch, T time, D width, M channels of the filter (D unless the mixer expands), R readouts (2 where the second
one reads the future), X what a channel remembers.
Source: Gu, Goel, Ré, "Efficiently modeling long sequences with structured state spaces", 2022, arXiv:2111.00396.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.long_conv import long_conv
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.ssm._output import Activation, Map, Output


class Filter(Mixer):
    """Base of the linear time-invariant mixers; its state is what each channel remembers."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """What the channels hold after the last input."""

        h_BDX: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of every filter."""

        causal: bool = True
        """False adds a kernel over the future, with a readout of its own; there is no step then."""
        activation: Activation = "gelu"
        """What follows the convolution."""
        output: Map = "glu"
        """How channels are mixed after it: a gated linear map, a linear map, or not at all."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of what sets time scales, which also gets no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """A convolution to rounding, a recurrence with a constant state; linear only without what follows it."""
        linear = Output.linear(config.activation, config.output)
        if config.causal:
            return Traits(causal="fft", step="constant", rollback="recorded", sequence_comm="state", lti=linear)
        return Traits(
            causal="no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="native",
            lti=linear,
        )

    def __init__(self, width: int, config: Config | None = None, channels: int | None = None) -> None:
        """``channels``: of the filter, where the mixer makes several of each input."""
        super().__init__(width, config)
        self.skip = nn.Parameter(torch.randn(channels or width))
        self.after = Output(channels or width, width, self.config.activation, self.config.output)

    @property
    def readouts(self) -> int:
        """Kernels a channel: one for the past, one for the future."""
        return 1 if self.config.causal else 2

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of kernels and states."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    @property
    def kind(self) -> torch.dtype:
        """Complex dtype beside it."""
        return torch.promote_types(self.dtype, torch.complex64)

    @property
    @abstractmethod
    def timing(self) -> tuple[str, ...]:
        """Names of the parameters that set time scales: they need a small learning rate and no weight decay."""

    @abstractmethod
    def filters(self, length: int) -> Tensor:
        """Kernels (R, M, length) without the skip: lags 0, 1, ...; where not causal also -1, -2, ...."""

    @abstractmethod
    def filter_macs(self, length: int) -> int:
        """Multiply-adds of ``filters``."""

    def remembered(self) -> tuple[int, ...]:
        """Shape of what one row remembers: (M, ...), of the real dtype."""
        raise TypeError(f"{type(self).__name__} does not say what it remembers")

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, M) without the skip from a state, and the state after each row's last input."""
        raise TypeError(f"{type(self).__name__} does not go on from a state")

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        if self.can.step == "none":
            return super().initial_state(batch, capacity=capacity)
        zeros_BDX = self.skip.new_zeros(batch, *self.remembered(), dtype=self.dtype)
        return self.State(h_BDX=zeros_BDX, length_B=self.no_length(batch))

    def param_groups(self) -> list[ParamGroup]:
        """What sets time scales: a small learning rate, no weight decay."""
        return [ParamGroup(names=self.timing, lr=self.config.learning_rate, weight_decay=0.0)]

    def kernel(self, length: int) -> Tensor:
        """Convolution kernels (R, M, length) without the skip: lags 0, 1, ...; where not causal also -1, -2, ...."""
        with torch.autocast(self.skip.device.type, enabled=False):
            return self.filters(length)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Convolve; with a state also add its echo and find the next one, for a few columns by the recurrence."""
        length = x_BTD.shape[1]
        valid_BT = layout.valid_BT(length)
        u_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        h_BDX = None
        with torch.autocast(x_BTD.device.type, enabled=False):
            if state is None:
                y_BTM = self.rows(u_BTD, layout.lengths_B)
            else:
                u_BTD = u_BTD.to(self.dtype)
                y_BTM, h_BDX = self.resume(u_BTD, state.h_BDX, layout.lengths_B)
                y_BTM = y_BTM + self.skip * self.spread(u_BTD)
        out_BTD = self.after(y_BTM.to(x_BTD.dtype))
        if state is None:
            return out_BTD, None
        return out_BTD, replace(state, h_BDX=h_BDX, length_B=layout.advance(state.length_B, length), trail=None)

    def rows(self, u_BTD: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Whole rows, zeros behind their lengths: the same for all of them, unless a filter asks where a row ends."""
        return self.convolve(u_BTD)

    def convolve(self, u_BTD: Tensor) -> Tensor:
        """The whole sequence from nothing (B, T, M), the skip included."""
        k_RMT = self.filters(u_BTD.shape[1])
        return long_conv(self.spread(u_BTD), k_RMT[0], None if self.config.causal else k_RMT[1], self.skip)

    def spread(self, u_BTD: Tensor) -> Tensor:
        """Inputs as the channels of the filter see them (B, T, M)."""
        times = len(self.skip) // self.width
        return u_BTD if times == 1 else u_BTD.repeat_interleave(times, -1)

    def flops(self, length: int) -> int:
        """The kernels, the convolution's transforms, and the product that mixes channels."""
        with torch.device("meta"):
            u, k = torch.empty(1, length, len(self.skip)), torch.empty(len(self.skip), length)
        macs = self.filter_macs(length) + long_conv.floor(u, k, None if self.config.causal else k).macs
        return 2 * (macs + length * self.after.macs)

    def state_bytes(self, length: int) -> int:
        """What the channels remember, and the length."""
        return torch.Size(self.remembered()).numel() * self.dtype.itemsize + 8
