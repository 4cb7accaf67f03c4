"""Diagonal state-space models in discrete time, one a channel: kernel, recurrence, and what a state adds.

    h_t = a h_{t-1} + u_t        y_t = Re sum_n c_n h_{t,n}        k_l = Re sum_n c_n a_n^l

Whoever keeps one mode of each conjugate pair passes 2 C b as c, whoever keeps all of them passes C b: no factor is
added here. The state counts inputs before b: the discretised system's own state is b h.

Shapes: B batch, T time, D channels, N modes, L kernel length, R readouts (1, or 2 where the second one reads the
future), 2 the real and the imaginary part.
Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", 2022,
arXiv:2206.11893, section 3.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import roll
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.vandermonde import vandermonde, vandermonde_transposed

SHORT = 32
"""Up to so many columns beside a state the recurrence, column by column, is quicker than the convolution."""


class Modes(NamedTuple):
    """What a parametrisation comes down to, in complex128: in float32 a phase loses a digit with every digit of l."""

    log_a_DN: Tensor
    """Logarithms of the modes' factors."""
    a_DN: Tensor
    """The factors: exp(log a), without its rounding where they are known directly."""
    c_RDN: Tensor
    """What each mode adds to the output."""
    kind: torch.dtype = torch.complex64
    """Complex dtype of kernels and states."""

    def kernels(self, length: int) -> Tensor:
        """K (R, D, L)."""
        return vandermonde(self.log_a_DN, self.c_RDN.to(self.kind), length)

    def resume(self, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (without a skip) of inputs that go on from a state, and the state after each row's last input.

        Rows are padded with zeros to the right.
        """
        u_BTD = u_BTD.to(h_BDN2.dtype)
        if u_BTD.shape[1] <= SHORT:
            return self.steps(u_BTD, h_BDN2, lengths_B)
        k_DL, echo_BTD, after_BDN2 = self.carry(u_BTD, h_BDN2, lengths_B)
        return long_conv(u_BTD, k_DL) + echo_BTD, after_BDN2

    def steps(self, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """A few inputs, one after the other and elementwise: the outputs, and the state after each row's last."""
        a_DN, c_DN = self.a_DN.to(self.kind), self.c_RDN[0].to(self.kind)
        h_BDN, outputs = torch.view_as_complex(h_BDN2), []
        for at, u_BD in enumerate(u_BTD.unbind(1)):
            new_BDN = h_BDN * a_DN + u_BD[..., None]
            outputs.append((new_BDN * c_DN).real.sum(-1))
            h_BDN = new_BDN if lengths_B is None else torch.where((at < lengths_B)[:, None, None], new_BDN, h_BDN)
        return torch.stack(outputs, 1), torch.view_as_real(h_BDN)

    def carry(self, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Many inputs: the kernel (D, T), what the state h adds to the outputs (B, T, D), and the state after them.

        Each row's state is that after its own last input, reached by powers that only decay: a^{len - 1 - t}, never
        a^{T - 1 - t} undone by a^{len - T}.
        """
        T = u_BTD.shape[1]
        c_DN, h_BDN = self.c_RDN[0], torch.view_as_complex(h_BDN2)
        k_DL = vandermonde(self.log_a_DN, c_DN.to(self.kind), T)
        response_BDT = vandermonde(self.log_a_DN, (c_DN * self.a_DN).to(self.kind) * h_BDN, T)
        last_first_BTD = (u_BTD if lengths_B is None else roll(u_BTD, lengths_B)).flip(1)
        new_BDN = vandermonde_transposed(self.log_a_DN, last_first_BTD.transpose(1, 2))
        count = T if lengths_B is None else lengths_B[:, None, None]
        after_BDN = (count * self.log_a_DN).exp().to(self.kind) * h_BDN + new_BDN
        return k_DL, response_BDT.transpose(1, 2), torch.view_as_real(after_BDN)


def expm1(z: Tensor) -> Tensor:
    """Take e^z - 1 of complex z, exact near 0 too.

    The real part is expm1(x) cos y - 2 sin(y / 2)^2, the imaginary part e^x sin y.
    """
    less, half = torch.expm1(z.real), z.imag / 2
    sine, cosine = half.sin(), half.cos()
    versed = 2 * sine.square()  # 1 - cos y
    return torch.complex(less * (1 - versed) - versed, (less + 1) * (2 * sine * cosine))


def log_uniform(shape: tuple[int, ...], steps: tuple[float, float]) -> Tensor:
    """Logarithms of step sizes that are drawn log-uniformly from a range. ConfigError where it is none."""
    low, high = steps
    if not 0 < low <= high:
        raise ConfigError(f"steps must be a range of positive step sizes, low first, not {steps}")
    return torch.empty(shape).uniform_(math.log(low), math.log(high))
