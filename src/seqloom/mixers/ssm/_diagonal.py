"""A bank of diagonal state-space models, one a channel: the parameters of S4D.

    zoh:       a = exp(dt A)                        b = (exp(dt A) - 1) / A
    bilinear:  a = (1 + dt A / 2) / (1 - dt A / 2)  b = dt / (1 - dt A / 2)

A has one eigenvalue of each conjugate pair (hence c = 2 C b), Re A = -exp(.) < 0; the input matrix is 1, folded into C.
Shapes: D channels, N modes (half the state size), R readouts (1, or 2 where the second one reads the future).
Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", 2022,
arXiv:2206.11893, sections 3 and 4.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from seqloom.core.steady import derived
from seqloom.mixers.ssm._modes import Modes, expm1, log_uniform
from seqloom.mixers.ssm._transition import Spectrum, eigenvalues

Rule = Literal["zoh", "bilinear"]


class DiagonalBank(nn.Module):
    """D channels of N modes; everything is computed in float32 or more, step sizes and phases in float64."""

    timing = ("step_log", "decay_log", "frequency")
    """Names of the parameters that set time scales."""

    def __init__(
        self, width: int, modes: int, init: Spectrum, rule: Rule, steps: tuple[float, float], readouts: int
    ) -> None:
        super().__init__()
        self.rule = rule
        start_N = eigenvalues(init, modes)
        self.step_log = nn.Parameter(log_uniform((width,), steps))
        self.decay_log = nn.Parameter((-start_N.real).log().float().repeat(width, 1))
        self.frequency = nn.Parameter(start_N.imag.float().repeat(width, 1))
        self.readout = nn.Parameter(torch.randn(readouts, width, modes, 2) * math.sqrt(0.5))

    @derived
    def discrete(self) -> Modes:
        """The modes in discrete time."""
        log_a_DN, a_DN, b_DN = self.factors()
        C_RDN = 2 * torch.view_as_complex(self.readout.double())
        return Modes(log_a_DN, a_DN, C_RDN * b_DN, torch.promote_types(self.step_log.dtype, torch.complex64))

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log a, a and b (D, N), complex128."""
        dt_D1 = self.step_log.double().exp()[:, None]
        A_DN = torch.complex(-self.decay_log.double().exp(), self.frequency.double())
        if self.rule == "zoh":
            log_a_DN = dt_D1 * A_DN
            less_DN = expm1(log_a_DN)
            return log_a_DN, less_DN + 1, less_DN / A_DN
        half_DN = 0.5 * dt_D1 * A_DN
        top_DN, bottom_DN = 1 + half_DN, 1 - half_DN
        top_DN = torch.where(top_DN == 0, 1e-30, top_DN)  # a = 0 has no logarithm; 1e-30 forgets as well
        return top_DN.log() - bottom_DN.log(), top_DN / bottom_DN, dt_D1 / bottom_DN

    def kernels(self, length: int) -> Tensor:
        """K (R, D, L)."""
        return self.discrete().kernels(length)
