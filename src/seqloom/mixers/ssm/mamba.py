"""Mamba: a diagonal state-space model whose input chooses how fast each channel runs, what it writes and reads.

    u, z = W_in x            u = silu(conv(u))            r, b, c = W_s u            dt = softplus(W_dt r + v)
    h_t[e, n] = exp(dt_t[e] A[e, n]) h_{t-1}[e, n] + dt_t[e] b_t[n] u_t[e]           A = -exp(L)
    y_t[e] = sum_n c_t[n] h_t[e, n] + S[e] u_t[e]                                    out = W_out (y . silu(z))

The decay is the exact one of a held input, the input's factor is Euler's dt b. At a pad dt = 0 and the convolution's
bias does not reach the state. What ``selective`` leaves out is constant instead: dt a number a channel, b c one weight
for each channel and state (only their product matters), so that "none" is the same block around S4D with real rates.

Shapes: B batch, T time, D width, E channels (D expand), N state, R rank of dt, K inputs that the convolution keeps.
Source: Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, arXiv:2312.00752,
sections 3.2 to 3.6, appendices B and D; the norms: Zuo et al., "Falcon Mamba", 2024, arXiv:2410.05355, section 2.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu, softplus

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.core.steady import derived
from seqloom.kernels.linear_scan import linear_scan
from seqloom.kernels.selective_scan import selective_scan
from seqloom.kernels.selective_scan import starts as segment_starts
from seqloom.kernels.short_conv import short_conv
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits

FLOOR = 1e-4
"""Smallest step size at the start."""
EPS = 1e-6
"""Added to the mean square by the norms of dt, b and c."""
SELECTIVE = ("all", "delta", "bc", "none")


class Mamba(Mixer):
    """Selective state space within its gated block; its state is N numbers a channel and the convolution's inputs."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position, float32 or wider."""

        h_BEN: Tensor
        inputs_BKE: Tensor
        """What the convolution still sees; K = 0 where it has one tap."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of Mamba."""

        expand: int = 2
        """Channels of the recurrence, in widths."""
        state: int = 16
        """Numbers that each channel remembers."""
        conv: int = 4
        """Taps of the convolution."""
        rank: int = 0
        """Rank of the map that makes the step sizes; 0 = the sixteenth part of the width, rounded up."""
        dt: tuple[float, float] = (1e-3, 1e-1)
        """Range of the step sizes at the start, uniform in their logarithm."""
        bias: bool = False
        """Biases of the maps in and out."""
        conv_bias: bool = True
        """A bias of the convolution."""
        selective: Literal["all", "delta", "bc", "none"] = "all"
        """What the input chooses: step sizes and maps, the step sizes, the maps, or nothing."""
        gate: bool = True
        """Multiply the output by silu of a second branch."""
        norm: bool = False
        """Normalise what makes the step sizes, and b and c, by their root mean square (Falcon Mamba)."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state, starts a segment by itself."""
        return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state", packing="native")

    @classmethod
    def grid(cls) -> Iterable[Mixer.Config]:
        """Each option once, in combinations that meet."""
        return (
            cls.Config(),
            cls.Config(selective="delta", state=3, conv=2),
            cls.Config(selective="bc", expand=1, norm=True),
            cls.Config(selective="none", gate=False, state=4, conv=1, conv_bias=False),
            cls.Config(rank=3, bias=True, norm=True, dt=(0.01, 0.01)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        self._refuse(options)
        self.channels = E = options.expand * width
        self.rank = options.rank or -(-width // 16)
        self.dt_selective, self.bc_selective = options.selective in ("all", "delta"), options.selective in ("all", "bc")
        self.split = (
            self.rank * self.dt_selective,
            options.state * self.bc_selective,
            options.state * self.bc_selective,
        )
        self.into = Linear(width, (2 if options.gate else 1) * E, bias=options.bias)
        self.conv = nn.Conv1d(E, E, options.conv, groups=E, bias=options.conv_bias)  # holds the taps, never called
        if options.selective != "none":
            self.select = Linear(E, sum(self.split), bias=False)
        if self.dt_selective:
            self.step = Linear(self.rank, E)
            nn.init.uniform_(self.step.weight, -(self.rank**-0.5), self.rank**-0.5)
            with torch.no_grad():
                self.step.bias.copy_(_first_steps(E, options.dt))
        else:
            self.step_bias = nn.Parameter(_first_steps(E, options.dt))
        if not self.bc_selective:
            self.weight = nn.Parameter(torch.randn(E, options.state))
        self.rate_log = nn.Parameter(torch.arange(1.0, options.state + 1).log().repeat(E, 1))
        self.skip = nn.Parameter(torch.ones(E))
        self.output = Linear(E, width, bias=options.bias)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of step sizes, rates and states."""
        return torch.promote_types(self.rate_log.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        new, E = self.rate_log.new_zeros, self.channels
        return self.State(
            h_BEN=new(batch, E, self.config.state, dtype=self.wide),
            inputs_BKE=new(batch, self.config.conv - 1, E, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def param_groups(self) -> list[ParamGroup]:
        """Rates, skips and biases of the step sizes get no weight decay, which would pull them to other time scales."""
        return [ParamGroup(names=("rate_log", "skip", "step.bias" if self.dt_selective else "step_bias"))]

    def mix(
        self, x_BTD: Tensor, state: BaseState | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, BaseState | None]:
        """Convolve, choose, scan, gate."""
        length = x_BTD.shape[1]
        if state is not None and length == 1 and layout.plain and self._steps_alone(x_BTD):
            return self._one_more(x_BTD, state)
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        u_BTE, *z_BTE = self.into(x_BTD).split(self.channels, 2)
        u_BTE, inputs_BKE = self._convolve(u_BTE, before.inputs_BKE, layout)
        dt_BTE, maps = self._choose(u_BTE, layout)
        with torch.autocast(x_BTD.device.type, enabled=False):
            rate_EN = -self.rate_log.to(self.wide).exp()
            y_BTE, h_BEN = self._scan(u_BTE, dt_BTE, rate_EN, maps, before.h_BEN, layout)
            y_BTE = torch.addcmul(y_BTE, u_BTE, self.skip.to(u_BTE.dtype))
        y_BTD = self.output(y_BTE * silu(z_BTE[0]) if z_BTE else y_BTE)
        if state is None:
            return y_BTD, None
        length_B = layout.advance(before.length_B, length)
        return y_BTD, replace(before, h_BEN=h_BEN, inputs_BKE=inputs_BKE, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """The maps, the convolution and the recurrence."""
        E, N = self.channels, self.config.state
        maps = sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, Linear | nn.Conv1d))
        return 2 * length * (maps + (4 if self.bc_selective else 1) * E * N)

    def state_bytes(self, length: int) -> int:
        """The states, the inputs that the convolution keeps, and the length."""
        return (self.config.state + self.config.conv - 1) * self.channels * self.wide.itemsize + 8

    def _refuse(self, options: Config) -> None:
        """Options that mean nothing."""
        low, high = options.dt
        for name in ("expand", "state", "conv"):
            if getattr(options, name) < 1:
                raise ConfigError(f"mamba: {name} must be at least 1, not {getattr(options, name)}")
        if options.rank < 0:
            raise ConfigError(f"mamba: rank must be 0 (a sixteenth of the width) or more, not {options.rank}")
        if not 0 < low <= high:
            raise ConfigError(f"mamba: dt must be a range of positive numbers, low first, not {options.dt}")
        if options.selective not in SELECTIVE:
            raise ConfigError(f"mamba: selective must be one of {', '.join(SELECTIVE)}, not {options.selective!r}")
        if options.norm and options.selective == "none":
            raise ConfigError("mamba: norm=True has nothing to normalise where selective='none'")

    def _steps_alone(self, x_B1D: Tensor) -> bool:
        """Whether a step is the lines of the docstring as they stand; narrower numbers go to the kernels."""
        plain = self.dt_selective and self.bc_selective and x_B1D.dtype == self.wide == self.into.weight.dtype
        return plain and not torch.is_autocast_enabled(x_B1D.device.type)

    @derived
    def constants(self) -> tuple[Tensor, Tensor]:
        """Rates A, and the convolution's taps with the oldest first."""
        return -self.rate_log.exp(), self.conv.weight[:, 0].T.contiguous()

    def _one_more(self, x_B1D: Tensor, state: Any) -> tuple[Tensor, BaseState]:
        """One position of every row: a chunk of one would cost the kernels more in preparation than in work."""
        (rate_EN, taps_KE), E = self.constants(), self.channels
        into_BE, *z_BE = self.into(x_B1D[:, 0]).split(E, 1)
        window_BKE = torch.cat([state.inputs_BKE, into_BE[:, None]], 1)
        u_BE = torch.einsum("bke,ke->be", window_BKE, taps_KE)
        u_BE = silu(u_BE if self.conv.bias is None else u_BE + self.conv.bias)
        r_BR, b_BN, c_BN = self._normed(self.select(u_BE).split(self.split, 1))
        dt_BE = softplus(self.step(r_BR))
        h_BEN = (dt_BE[..., None] * rate_EN).exp() * state.h_BEN
        h_BEN = torch.addcmul(h_BEN, (dt_BE * u_BE)[..., None], b_BN[:, None])
        y_BE = torch.addcmul(torch.bmm(h_BEN, c_BN[..., None])[..., 0], u_BE, self.skip)
        y_B1D = self.output(y_BE * silu(z_BE[0]) if z_BE else y_BE)[:, None]
        length_B = state.length_B + 1
        return y_B1D, replace(state, h_BEN=h_BEN, inputs_BKE=window_BKE[:, 1:], length_B=length_B, trail=None)

    def _normed(self, parts: tuple[Tensor, ...]) -> list[Tensor]:
        """What makes step sizes and maps, by its root mean square where the options say so."""
        if not self.config.norm:
            return list(parts)
        wide = [part.float() if part.itemsize < 4 else part for part in parts]
        return [rms_norm(part, part.shape[-1:], eps=EPS).to(parts[0].dtype) for part in wide]

    def _convolve(self, u_BTE: Tensor, inputs_BKE: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        weight_EK = self.conv.weight[:, 0].to(u_BTE.dtype)
        bias_E = None if self.conv.bias is None else self.conv.bias.to(u_BTE.dtype)
        with torch.autocast(u_BTE.device.type, enabled=False):
            return short_conv(u_BTE, weight_EK, bias_E, inputs_BKE, layout.segments_BT(), layout.lengths_B, "silu")

    def _choose(self, u_BTE: Tensor, layout: Layout) -> tuple[Tensor, list[Tensor]]:
        """Step sizes, 0 at pads, and the maps b and c where the input chooses them."""
        parts = self.select(u_BTE).split(self.split, 2) if sum(self.split) else u_BTE.split((0, 0, u_BTE.shape[2]), 2)
        parts = self._normed(parts)
        raw_BTE = self.step(parts[0]) if self.dt_selective else self.step_bias.expand_as(u_BTE)
        dt_BTE, valid_BT = softplus(raw_BTE.to(self.wide)), layout.valid_BT(u_BTE.shape[1])
        dt_BTE = dt_BTE if valid_BT is None else dt_BTE.masked_fill(~valid_BT[..., None], 0)
        return dt_BTE, list(parts[1:]) if self.bc_selective else []

    def _scan(
        self, u_BTE: Tensor, dt_BTE: Tensor, rate_EN: Tensor, maps: list[Tensor], h_BEN: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        if maps:
            y_BTE, h_BEN, _ = selective_scan(u_BTE, dt_BTE, rate_EN, *maps, h_BEN, layout.segments_BT())
            return y_BTE, h_BEN
        decay_BTEN = (dt_BTE[..., None] * rate_EN).exp()
        start_TB = segment_starts(layout.segments_BT())
        if start_TB is not None:
            decay_BTEN = decay_BTEN.masked_fill(start_TB.T[..., None, None], 0)
        into_BTEN = (dt_BTE * u_BTE.to(self.wide))[..., None].expand_as(decay_BTEN)
        h_BTX, h_BX = linear_scan(decay_BTEN.flatten(2), into_BTEN.flatten(2), h_BEN.flatten(1))
        y_BTE = (h_BTX.view_as(decay_BTEN) * self.weight.to(self.wide)).sum(3)
        return y_BTE.to(u_BTE.dtype), h_BX.view_as(h_BEN)


def _first_steps(channels: int, bounds: tuple[float, float]) -> Tensor:
    """What softplus turns into step sizes that are uniform in their logarithm."""
    low, high = (math.log(bound) for bound in bounds)
    dt_E = torch.empty(channels).uniform_(low, high).exp().clamp_min(FLOOR)
    return dt_E + (-torch.expm1(-dt_E)).log()
