"""GSS: a diagonal state-space model of few channels, whose output gates a wide branch.

    u = GELU(W_u x)  (F)      v = GELU(W_v x)  (E)      y = k * n(v) + s n(v)      out = W_o (u . W_c y)

    k_l = Re sum_n W_n (e^{L_n} - 1) / L_n  e^{L_n l}        L = -exp(.) + i exp(.)

The long convolution, which is the slow part, sees E channels, a quarter of the width D; the gate u has F = 4 D. L (N)
is shared by the channels, starts at random (both exponents normal: nothing of HiPPO), the step size is 1 and is not
learned. Between y and the gate there is no activation. N modes are complex numbers without conjugates and **without a
factor 2**. The residual connection and the norm before everything belong to the backbone.

Decided here: n is the norm that the paper's pseudocode has before the filter, as RMS rather than layer normalisation,
which leaves two channels nothing but the sign of their difference. N = 512 is the paper's and affordable: the modes'
powers are one table for all channels, and there are few channels.
Shapes: B batch, T time, D width, F hidden channels, E channels of the filter, N modes.
Source: Mehta, Gupta, Cutkosky, Neyshabur, "Long range language modeling via gated state spaces", 2022,
arXiv:2206.13947, section 3.2 and its pseudocode.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.vandermonde import vandermonde
from seqloom.layers.linear import Linear
from seqloom.layers.norm import Norm
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.ssm._dss import SharedBank


class GSS(Mixer):
    """Gated state-space mixer; its state is N complex numbers for each of the filter's channels."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """What the filter's channels hold after the last input."""

        h_BEN2: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of GSS."""

        state: int = 512
        """Modes N of the filter, each a complex number in every channel."""
        channels: int = 0
        """Channels E of the filter; 0 = a quarter of the width, at least one."""
        hidden: int = 0
        """Channels F of the gate; 0 = four times the width."""
        norm: bool = True
        """Normalise the filter's inputs."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of the filter, which also gets no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """A convolution to rounding, a recurrence with a constant state."""
        return Traits(causal="fft", step="constant", rollback="recorded", sequence_comm="state")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (cls.Config(), cls.Config(state=8, channels=3, hidden=5, norm=False))

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.state < 1 or options.channels < 0 or options.hidden < 0:
            raise ConfigError(
                f"state must be at least 1, channels and hidden at least 0 (their defaults), not {options.state}, "
                f"{options.channels} and {options.hidden}"
            )
        self.channels = E = options.channels or max(width // 4, 1)
        F = options.hidden or 4 * width
        self.gate, self.into = Linear(width, F), Linear(width, E)
        self.norm = Norm(E) if options.norm else None
        self.bank = SharedBank(torch.complex(-torch.randn(options.state).exp(), torch.randn(options.state).exp()), E)
        self.skip = nn.Parameter(torch.randn(E))
        self.back, self.output = Linear(E, F), Linear(F, width)

    @property
    def wide(self) -> torch.dtype:
        """Real dtype of kernels and states."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        zeros_BEN2 = self.skip.new_zeros(batch, self.channels, self.config.state, 2, dtype=self.wide)
        return self.State(h_BEN2=zeros_BEN2, length_B=self.no_length(batch))

    def param_groups(self) -> list[ParamGroup]:
        """The filter's eigenvalues and readouts: a small learning rate, no weight decay."""
        names = tuple(f"bank.{name}" for name in self.bank.timing)
        return [ParamGroup(names=names, lr=self.config.learning_rate, weight_decay=0.0)]

    def kernel(self, length: int) -> Tensor:
        """Convolution kernels of the filter (1, E, length) without the skip."""
        with torch.autocast(self.skip.device.type, enabled=False):
            return self.bank.kernels(length)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Filter the narrow branch and gate the wide one."""
        length = x_BTD.shape[1]
        u_BTF, v_BTE = gelu(self.gate(x_BTD)), gelu(self.into(x_BTD))
        valid_BT = layout.valid_BT(length)
        if valid_BT is not None:
            v_BTE = v_BTE.masked_fill(~valid_BT[..., None], 0)  # a norm without a bias keeps zeros
        h_BEN2 = None
        with torch.autocast(x_BTD.device.type, enabled=False):
            v_BTE = v_BTE.to(self.wide)
            v_BTE = v_BTE if self.norm is None else self.norm(v_BTE)
            if state is None:
                y_BTE = long_conv(v_BTE, self.bank.kernels(length)[0], None, self.skip)
            else:
                y_BTE, h_BEN2 = self.bank.discrete().resume(v_BTE, state.h_BEN2, layout.lengths_B)
                y_BTE = y_BTE + self.skip * v_BTE
        out_BTD = self.output(u_BTF * self.back(y_BTE.to(x_BTD.dtype)))
        if state is None:
            return out_BTD, None
        return out_BTD, replace(state, h_BEN2=h_BEN2, length_B=layout.advance(state.length_B, length), trail=None)

    def flops(self, length: int) -> int:
        """The maps, the filter's kernels and its convolution."""
        N, E = self.config.state, self.channels
        with torch.device("meta"):
            log_a, c = torch.empty(1, N, dtype=torch.complex128), torch.empty(E, 1, N, dtype=torch.complex64)
            u, k = torch.empty(1, length, E), torch.empty(E, length)
        maps = sum(part.weight.numel() for part in (self.gate, self.into, self.back, self.output))
        return 2 * (length * maps + vandermonde.floor(log_a, c, length).macs + long_conv.floor(u, k).macs)

    def state_bytes(self, length: int) -> int:
        """N complex numbers a channel of the filter, and the length."""
        return 2 * self.config.state * self.channels * self.wide.itemsize + 8
