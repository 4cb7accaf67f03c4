"""A bank of diagonal state-space models, one a channel: its parameters, its kernel, and its state.

    h_t = a h_{t-1} + u_t        y_t = 2 Re sum_n C_n b_n h_{t,n}        k_l = 2 Re sum_n C_n b_n a_n^l

    zoh:       a = exp(dt A)                        b = (exp(dt A) - 1) / A
    bilinear:  a = (1 + dt A / 2) / (1 - dt A / 2)  b = dt / (1 - dt A / 2)

A has one eigenvalue of each conjugate pair (hence 2 Re), Re A = -exp(.) < 0; the input matrix is 1, folded into C. The
state h counts inputs before b: the discretised system's own state is b h.

Shapes: B batch, T time, D channels, N modes (half the state size), L kernel length, R readouts (1, or 2 where the
second one reads the future).
Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", 2022,
arXiv:2206.11893, sections 3 and 4.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from seqloom.core.layout import roll
from seqloom.kernels.vandermonde import vandermonde, vandermonde_transposed

Init = Literal["lin", "inv", "legs", "real"]
Rule = Literal["zoh", "bilinear"]


def eigenvalues(init: Init, modes: int) -> Tensor:
    """The modes' eigenvalues in continuous time (complex128), one of each conjugate pair.

    legs: those of the normal part of the HiPPO-LegS matrix of twice the size, found in float64.
    """
    n = torch.arange(modes, dtype=torch.float64)
    if init == "real":
        return torch.complex(-(n + 1), torch.zeros_like(n))
    if init == "lin":
        imaginary = math.pi * n
    elif init == "inv":
        imaginary = 2 * modes / math.pi * (2 * modes / (2 * n + 1) - 1)
    else:
        root = torch.sqrt(2 * torch.arange(2 * modes, dtype=torch.float64) + 1)
        skew = (-0.5 * torch.outer(root, root)).tril(-1)
        imaginary = torch.linalg.eigvalsh(-1j * (skew - skew.T))[modes:]
    return torch.complex(torch.full_like(n, -0.5), imaginary)


class DiagonalBank(nn.Module):
    """D channels of N modes; everything is computed in float32 or more, step sizes and phases in float64."""

    def __init__(
        self, width: int, modes: int, init: Init, rule: Rule, steps: tuple[float, float], readouts: int
    ) -> None:
        super().__init__()
        self.rule = rule
        low, high = (math.log(step) for step in steps)
        start_N = eigenvalues(init, modes)
        self.step_log = nn.Parameter(torch.empty(width).uniform_(low, high))
        self.decay_log = nn.Parameter((-start_N.real).log().float().repeat(width, 1))
        self.frequency = nn.Parameter(start_N.imag.float().repeat(width, 1))
        self.readout = nn.Parameter(torch.randn(readouts, width, modes, 2) * math.sqrt(0.5))

    @property
    def timing(self) -> tuple[str, ...]:
        """Names of the parameters that set time scales: they need a small learning rate and no weight decay."""
        return "step_log", "decay_log", "frequency"

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of kernels and states."""
        return torch.promote_types(self.step_log.dtype, torch.float32)

    @property
    def kind(self) -> torch.dtype:
        """Complex dtype beside it."""
        return torch.promote_types(self.dtype, torch.complex64)

    def discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log a (D, N), a (D, N) and 2 C b (R, D, N), complex128.

        In float32 a phase would lose a digit with every further digit of l.
        """
        dt_D1 = self.step_log.double().exp()[:, None]
        A_DN = torch.complex(-self.decay_log.double().exp(), self.frequency.double())
        C_RDN = 2 * torch.view_as_complex(self.readout.double())
        if self.rule == "zoh":
            log_a_DN = dt_D1 * A_DN
            less_DN = _expm1(log_a_DN)
            return log_a_DN, less_DN + 1, C_RDN * (less_DN / A_DN)
        half_DN = 0.5 * dt_D1 * A_DN
        top_DN, bottom_DN = 1 + half_DN, 1 - half_DN
        top_DN = torch.where(top_DN == 0, 1e-30, top_DN)  # a = 0 has no logarithm; 1e-30 forgets as well
        return top_DN.log() - bottom_DN.log(), top_DN / bottom_DN, C_RDN * (dt_D1 / bottom_DN)

    def kernels(self, length: int) -> Tensor:
        """K (R, D, L)."""
        log_a_DN, _, c_RDN = self.discrete()
        return vandermonde(log_a_DN, c_RDN.to(self.kind), length)

    def steps(self, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """A few inputs, one after the other and elementwise: the outputs, and the state after each row's last."""
        _, a_DN, c_RDN = self.discrete()
        a_DN, c_DN = a_DN.to(self.kind), c_RDN[0].to(self.kind)
        h_BDN, outputs = torch.view_as_complex(h_BDN2), []
        for at, u_BD in enumerate(u_BTD.unbind(1)):
            new_BDN = h_BDN * a_DN + u_BD[..., None]
            outputs.append((new_BDN * c_DN).real.sum(-1))
            h_BDN = new_BDN if lengths_B is None else torch.where((at < lengths_B)[:, None, None], new_BDN, h_BDN)
        return torch.stack(outputs, 1), torch.view_as_real(h_BDN)

    def carry(self, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Many inputs: the kernel (D, T), what the state h adds to the outputs (B, T, D), and the state after them.

        Rows are padded with zeros to the right; each row's state is that after its own last input, reached by powers
        that only decay: a^{len - 1 - t}, never a^{T - 1 - t} undone by a^{len - T}.
        """
        T = u_BTD.shape[1]
        log_a_DN, a_DN, c_RDN = self.discrete()
        k_DL = vandermonde(log_a_DN, c_RDN[0].to(self.kind), T)
        h_BDN = torch.view_as_complex(h_BDN2)
        c_BDN = (c_RDN[0] * a_DN).to(self.kind) * h_BDN
        response_BDT = vandermonde(log_a_DN, c_BDN, T)
        last_first_BTD = (u_BTD if lengths_B is None else roll(u_BTD, lengths_B)).flip(1)
        new_BDN = vandermonde_transposed(log_a_DN, last_first_BTD.transpose(1, 2))
        count = T if lengths_B is None else lengths_B[:, None, None]
        after_BDN = (count * log_a_DN).exp().to(self.kind) * h_BDN + new_BDN
        return k_DL, response_BDT.transpose(1, 2), torch.view_as_real(after_BDN)


def _expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 for complex z, exact near 0 too: expm1(x) cos y - 2 sin(y / 2)^2 + i exp(x) sin y."""
    less, half = torch.expm1(z.real), z.imag / 2
    sine, cosine = half.sin(), half.cos()
    versed = 2 * sine.square()  # 1 - cos y
    return torch.complex(less * (1 - versed) - versed, (less + 1) * (2 * sine * cosine))
