"""The modes of DSS and GSS: one diagonal matrix for all channels, and a weight of each channel for each mode.

    exp      k_l = Re sum_n W_n (e^{z_n} - 1) / L_n  e^{z_n l}       L = -exp(.) + i (.)    or    -exp(.) + i exp(.)
    softmax  k_l = Re sum_n W_n / L_n  e^{z_n l} / sum_{r < T} e^{z_n r}                    L of any sign
    z_n = dt L_n,    or dt Re L_n + i dt' Im L_n with a step size of its own for the phases

All N modes are stored, none stands for a conjugate pair, and **no factor 2** belongs to the real part.

Where Re L > 0 the softmax is taken from its largest exponent, the last position: with z' = -z it is
e^{z' (T - 1 - l)} / sum_r e^{z' r}, powers that only decay, read backwards. The sum is (e^{z T} - 1) / (e^z - 1), by
its first terms where z T is next to nothing. It has zeros on the imaginary axis, and L may pass 0, so that
the reciprocal of x = L sum is x* / (|x|^2 + 1e-7). The authors' code guards (e^{z T} - 1) L in the same way; that is
of the size of z T, and a short row's kernel (T = 1, where a softmax is 1) would lose two thirds to the guard.
Shapes: B batch, D channels, N modes, R readouts (1, or 2 where the second one reads the future), L kernel length.
Source: Gupta, Gu, Berant, "Diagonal state spaces are as effective as structured state spaces", 2022, arXiv:2203.14343,
section 3 and appendix A; Mehta, Gupta, Cutkosky, Neyshabur, "Long range language modeling via gated state spaces",
2022, arXiv:2206.13947, section 3 (the second form of L).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from seqloom.core.steady import derived
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers.ssm._modes import Modes, expm1, log_uniform

Form = Literal["exp", "softmax"]
GUARD = 1e-7
"""Added to |x|^2 in the reciprocal of a softmax's denominator."""
SMALL = 1e-6
"""Up to here z T is small: the sum's first two terms are right to SMALL^2 / 6."""


class SharedBank(nn.Module):
    """N modes for D channels; everything is computed in float32 or more, exponents in float64."""

    def __init__(
        self,
        eigenvalue_N: Tensor,
        width: int,
        form: Form = "exp",
        steps: tuple[float, float] | None = None,
        phase_steps: bool = False,
        readouts: int = 1,
    ) -> None:
        """Without ``steps`` the step is 1 and the imaginary part, then positive, is stored by its logarithm (GSS)."""
        super().__init__()
        self.form = form
        decay_N, turn_N = -eigenvalue_N.real, eigenvalue_N.imag
        self.step_log = None
        if steps is not None:
            step_log_D1 = log_uniform((width, 1), steps)
            self.step_log = nn.Parameter(step_log_D1.repeat(1, 2 if phase_steps else 1))
        if form == "softmax":
            self.real = nn.Parameter(-decay_N.float())
        else:
            self.decay_log = nn.Parameter(decay_N.log().float())
        if steps is None:
            self.frequency_log = nn.Parameter(turn_N.log().float())
        else:
            self.frequency = nn.Parameter(turn_N.float())
        self.readout = nn.Parameter(torch.randn(readouts, width, len(eigenvalue_N), 2))

    @property
    def timing(self) -> tuple[str, ...]:
        """Names of all parameters: each wants a small learning rate and no weight decay."""
        return tuple(name for name, _ in self.named_parameters())

    @property
    def kind(self) -> torch.dtype:
        """Complex dtype of kernels and states."""
        return torch.promote_types(self.readout.dtype, torch.complex64)

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """L (N) and z (D, N), complex128."""
        real_N = self.real.double() if self.form == "softmax" else -self.decay_log.double().exp()
        turn_N = self.frequency_log.double().exp() if self.step_log is None else self.frequency.double()
        L_N = torch.complex(real_N, turn_N)
        if self.step_log is None:
            return L_N, L_N.expand(self.readout.shape[1], -1)
        dt_D2 = self.step_log.double().exp().expand(-1, 2)
        return L_N, torch.complex(dt_D2[:, :1] * real_N, dt_D2[:, 1:] * turn_N)

    @derived
    def discrete(self) -> Modes:
        """The modes in discrete time; only of the form exp, which is the same at every length."""
        L_N, z_DN = self.eigenvalues()
        less_DN = expm1(z_DN)
        W_RDN = torch.view_as_complex(self.readout.double())
        return Modes(z_DN, less_DN + 1, W_RDN * (less_DN / L_N), self.kind)

    def kernels(self, length: int, lengths_B: Tensor | None = None) -> Tensor:
        """K (R, D, L), or one for each row's length (B, R, D, L), of which what lies behind it means nothing."""
        if self.form == "exp":
            modes = self.discrete()
            if self.step_log is not None:
                return modes.kernels(length)
            c_XN = modes.c_RDN.to(self.kind).flatten(0, 1)  # one table of powers, and every channel a row of it
            return vandermonde(modes.log_a_DN[:1], c_XN[:, None], length).view(*modes.c_RDN.shape[:2], length)
        L_N, z_DN = self.eigenvalues()
        rising_N = L_N.real > 0
        falling_DN = torch.where(rising_N, -z_DN, z_DN)
        count_B11 = torch.tensor([length], device=z_DN.device) if lengths_B is None else lengths_B
        count_B11 = count_B11.double()[:, None, None]
        scale_BDN = _reciprocal(_geometric(falling_DN, count_B11) * L_N)
        c_BRDN = torch.view_as_complex(self.readout.double()) * scale_BDN[:, None]
        both_B2RDN = torch.stack([c_BRDN * ~rising_N, c_BRDN * rising_N], 1).to(self.kind)
        k_BRDL, back_BRDL = vandermonde(falling_DN, both_B2RDN, length).unbind(1)
        if lengths_B is None:
            return (k_BRDL + back_BRDL.flip(-1))[0]
        at_BL = lengths_B[:, None] - 1 - torch.arange(length, device=lengths_B.device)
        at_BRDL = at_BL.clamp_min(0)[:, None, None].expand_as(back_BRDL)
        return k_BRDL + back_BRDL.gather(-1, at_BRDL).masked_fill(at_BL[:, None, None] < 0, 0)


def _geometric(z_DN: Tensor, count_B11: Tensor) -> Tensor:
    """Sum of e^{z r} over r = 0 .. count - 1 (B, D, N)."""
    whole_BDN = z_DN * count_B11
    small_BDN = whole_BDN.abs() < SMALL
    away_BDN = torch.where(small_BDN, 1.0, z_DN)  # a gradient through 0 / 0 would be NaN even where it is not taken
    sum_BDN = expm1(torch.where(small_BDN, 1.0, whole_BDN)) / expm1(away_BDN)
    return torch.where(small_BDN, count_B11 + 0.5 * whole_BDN * (count_B11 - 1), sum_BDN)


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x, bounded near 0."""
    return x.conj() / (x.real.square() + x.imag.square() + GUARD)
