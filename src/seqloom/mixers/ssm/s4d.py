"""S4D: one diagonal state-space model a channel, run as a convolution or as a recurrence.

    y = k * u + s u,    k_l = 2 Re sum_n C_n b_n a_n^l        out = GLU(W GELU(y))

a and b discretise x' = A x + 1 u by zero-order hold or the bilinear rule, A starting from one of four spectra:

    lin   A_n = -1/2 + i pi n                 legs  the normal part of HiPPO-LegS
    inv   A_n = -1/2 + i (N / pi) (N / (2 n + 1) - 1)       real  A_n = -(n + 1)

Half of each conjugate pair is stored and the factor 2 belongs to the kernel. A second readout on the same modes gives
the kernel of lags -1, -2, ... where the mixer may look ahead.
Shapes: B batch, T time, D width, N state size (N / 2 modes), R readouts.
Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", 2022,
arXiv:2206.11893, sections 3 and 4; activation and output mixing: the layer of its section 5 (as in S4).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.ssm._diagonal import DiagonalBank

SHORT = 32
"""Up to so many columns beside a state the recurrence, column by column, is quicker than the convolution."""


class S4D(Mixer):
    """Diagonal state-space mixer; its state is N / 2 complex numbers a channel."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """The modes after the last input, as pairs of real numbers."""

        h_BDN2: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of S4D."""

        state: int = 64
        """State size N of each channel; its N / 2 complex modes stand for conjugate pairs. Even."""
        init: Literal["lin", "inv", "legs", "real"] = "legs"
        """Spectrum at the start: evenly spaced, inverse, of HiPPO-LegS, or real."""
        discretisation: Literal["zoh", "bilinear"] = "zoh"
        """Zero-order hold, or the bilinear (trapezoidal) rule."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of the initial step sizes, log-uniform: 1 / step is how many positions a channel remembers."""
        causal: bool = True
        """False adds a kernel over the future, with a readout of its own; there is no step then."""
        activation: Literal["gelu", "none"] = "gelu"
        """What follows the convolution."""
        output: Literal["glu", "linear", "none"] = "glu"
        """How channels are mixed after it: a gated linear map, a linear map, or not at all."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of steps, decays and frequencies, which also get no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """A convolution to rounding, a recurrence with a constant state; linear only without what follows it."""
        linear = config.activation == "none" and config.output != "glu"
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

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=8, init="lin", discretisation="bilinear", output="linear"),
            cls.Config(state=8, init="inv", discretisation="bilinear", activation="none"),
            cls.Config(state=8, init="real", activation="none", output="none"),
            cls.Config(state=8, init="lin", causal=False),
            cls.Config(state=8, causal=False, activation="none", output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        low, high = options.steps
        if options.state < 2 or options.state % 2:
            raise ConfigError(f"state must be even and at least 2, not {options.state}: modes come in conjugate pairs")
        if not 0 < low <= high:
            raise ConfigError(f"steps must be a range of positive step sizes, low first, not {options.steps}")
        readouts = 1 if options.causal else 2
        self.bank = DiagonalBank(
            width, options.state // 2, options.init, options.discretisation, options.steps, readouts
        )
        self.skip = nn.Parameter(torch.randn(width))
        self.mixing = None
        if options.output != "none":
            self.mixing = nn.Linear(width, 2 * width if options.output == "glu" else width)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        if not self.config.causal:
            return super().initial_state(batch, capacity=capacity)
        zeros_BDN2 = self.skip.new_zeros(batch, self.width, self.config.state // 2, 2, dtype=self.bank.dtype)
        return self.State(h_BDN2=zeros_BDN2, length_B=self.no_length(batch))

    def param_groups(self) -> list[ParamGroup]:
        """Step sizes, decays and frequencies: a small learning rate, no weight decay."""
        names = tuple(f"bank.{name}" for name in self.bank.timing)
        return [ParamGroup(names=names, lr=self.config.learning_rate, weight_decay=0.0)]

    def kernel(self, length: int) -> Tensor:
        """Convolution kernels (R, D, length) without the skip: lags 0, 1, ...; where not causal also -1, -2, ...."""
        with torch.autocast(self.skip.device.type, enabled=False):
            return self.bank.kernels(length)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Convolve; with a state also add its echo and find the next one, for a few columns by the recurrence."""
        length = x_BTD.shape[1]
        valid_BT = layout.valid_BT(length)
        u_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        h_BDN2 = None
        with torch.autocast(x_BTD.device.type, enabled=False):
            if state is None:
                y_BTD = self._convolve(u_BTD)
            else:
                y_BTD, h_BDN2 = self._continue(u_BTD, state.h_BDN2, layout.lengths_B)
        out_BTD = self._after(y_BTD.to(x_BTD.dtype))
        if state is None:
            return out_BTD, None
        return out_BTD, replace(state, h_BDN2=h_BDN2, length_B=layout.advance(state.length_B, length), trail=None)

    def flops(self, length: int) -> int:
        """The kernel's sums, the convolution's transforms, and the product that mixes channels."""
        readouts = 1 if self.config.causal else 2
        with torch.device("meta"):
            u, k = torch.empty(1, length, self.width), torch.empty(self.width, length)
            log_a = torch.empty(self.width, self.config.state // 2, dtype=torch.complex128)
            c = torch.empty(readouts, *log_a.shape, dtype=torch.complex64)
        macs = vandermonde.floor(log_a, c, length).macs
        macs += long_conv.floor(u, k, None if self.config.causal else k).macs
        mixing = 0 if self.mixing is None else self.mixing.weight.numel()
        return 2 * (macs + length * mixing)

    def state_bytes(self, length: int) -> int:
        """N numbers a channel and the length."""
        return self.width * self.config.state * self.bank.dtype.itemsize + 8

    def _convolve(self, u_BTD: Tensor) -> Tensor:
        k_RDT = self.bank.kernels(u_BTD.shape[1])
        return long_conv(u_BTD, k_RDT[0], None if self.config.causal else k_RDT[1], self.skip)

    def _continue(self, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        u_BTD = u_BTD.to(self.bank.dtype)
        if u_BTD.shape[1] <= SHORT:
            y_BTD, after_BDN2 = self.bank.steps(u_BTD, h_BDN2, lengths_B)
            return y_BTD + self.skip * u_BTD, after_BDN2
        k_DT, echo_BTD, after_BDN2 = self.bank.carry(u_BTD, h_BDN2, lengths_B)
        return long_conv(u_BTD, k_DT, None, self.skip) + echo_BTD, after_BDN2

    def _after(self, y_BTD: Tensor) -> Tensor:
        if self.config.activation == "gelu":
            y_BTD = gelu(y_BTD)
        if self.mixing is not None:
            y_BTD = self.mixing(y_BTD)
        return glu(y_BTD, -1) if self.config.output == "glu" else y_BTD
