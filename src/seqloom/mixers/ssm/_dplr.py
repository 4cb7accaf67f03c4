"""State-space models whose matrix is diagonal plus low rank, one a channel: kernel, recurrence, and long chunks.

    x' = A x + B u      y = 2 Re C x      A = diag L - P P*

on the stored half of the conjugate pairs: x'_n = L_n x_n - sum_q P_qn 2 Re sum_m P*_qm x_m + B_n u.

**Kernel** by its generating function. With the bilinear rule, z = 2 (1 - w) / (1 + w) and k(a, b) = dt sum_n a_n b_n /
(z - dt L_n) + conjugate (the Cauchy sums),

    sum_l w^l C A-bar^l B-bar = 2 / (1 + w) [k(C, B) - k(C, P) (1 + k(P*, P))^{-1} k(P*, B)] .

Taken at n >= L points of a circle of radius r < 1, the inverse transform gives K_l + r^n K_{l+n} + ..., times r^l: A is
dissipative, so that A-bar is a contraction and nothing else is needed to make the tail vanish. With r^{n+L} = 2^-52 the
tail and the rounding that r^{-L} magnifies are equal: 2^{-26} of the largest tap for n = L, 2^{-39} for n = 3 L. No
power of A-bar and no point at which 1 + w = 0. Where C~ = C (1 - A-bar^L) is what is stored, r = 1 and n = L: the sum
over l < L is exact, and at w = -1 it is its limit, dt / 2 sum_n C~_n B_n + conjugate.

**Step** by Woodbury's identity, E = 1 / (1 - dt L / 2), W = (2 / dt + 2 Re P* E P)^{-1}:

    A-bar x = (2 E - 1) x - 4 E P W Re(P* E x)      B-bar = dt (E B - 2 E P W Re(P* E B))

so that A-bar is diagonal plus low rank too, and a step is O(N). The eigenbasis of A-bar, in which a step would be
elementwise, takes O(N^3) to find at every call, and is no basis: its condition number at N = 32 is 6e19 for legs and
1e15 for legt, and 2e9 at N = 64 once the parameters are rounded to float32.

Shapes: B batch, T time, D channels, N modes (half the state size), M = 2 N real coordinates, Q rank, R readouts,
J points, C columns of a chunk.
Source: Gu, Goel, Ré, "Efficiently modeling long sequences with structured state spaces", 2022, arXiv:2111.00396,
section 3 and appendix C; the circle inside the unit circle: as in Abate and Whitt, "Numerical inversion of probability
generating functions", 1992.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels.cauchy import cauchy
from seqloom.kernels.long_conv._lags import fast_length

CHUNK = 32
"""Columns that a dense block takes at once; as many steps, at most, follow the last whole one."""
SHORT = 96
"""Up to so many columns beside a state the recurrence, column by column, is quicker than dense blocks."""


class Discrete(NamedTuple):
    """One step: x <- a x - sum_q u_q Re(q_q x) + b u, y = Re c x."""

    a_DN: Tensor
    u_QDN: Tensor
    q_QDN: Tensor
    b_DN: Tensor
    c_RDN: Tensor

    def to(self, kind: torch.dtype) -> "Discrete":
        """In another complex dtype."""
        return Discrete(*(value.to(kind) for value in self))

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """A-bar (D, M, M), B-bar (D, M) and C (R, D, M) on real coordinates, real parts before imaginary parts."""
        real, imaginary = torch.diag_embed(self.a_DN.real), torch.diag_embed(self.a_DN.imag)
        turn_DMM = torch.cat([torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], -2)
        rank_DMM = (_stacked(self.u_QDN)[..., None] * _stacked(self.q_QDN.conj())[:, :, None]).sum(0)
        return turn_DMM - rank_DMM, _stacked(self.b_DN), _stacked(self.c_RDN.conj())


class System(NamedTuple):
    """A parametrisation's values in complex128."""

    step_D: Tensor
    eigenvalue_DN: Tensor
    """Of the diagonal part; negative real parts."""
    low_rank_QDN: Tensor
    """P."""
    input_DN: Tensor
    readout_RDN: Tensor
    """C, or C~."""

    def kernels(self, length: int, dtype: torch.dtype) -> Tensor:
        """K (R, D, L) of C, to the precision of ``dtype``."""
        n, log_radius = circle(length, dtype)
        j_J = torch.arange(n // 2 + 1, dtype=torch.float64, device=self.step_D.device)
        half_J = torch.complex(torch.full_like(j_J, -0.5 * log_radius), math.pi / n * j_J)
        tanh_J = half_J.tanh()  # (1 - w) / (1 + w) for w = exp(-2 half)
        k_RDn = torch.fft.irfft((1 + tanh_J) * self._generated(2 * tanh_J), n)
        back_L = (-log_radius * torch.arange(length, dtype=torch.float64, device=j_J.device)).exp()
        return (k_RDn[..., :length] * back_L).to(dtype)

    def tied_kernels(self, length: int, dtype: torch.dtype) -> Tensor:
        """K (R, D, L) of C~ = C (1 - A-bar^L), on the unit circle."""
        j_J = torch.arange((length + 1) // 2, dtype=torch.float64, device=self.step_D.device)
        tangent_J = torch.complex(torch.zeros_like(j_J), (math.pi / length * j_J).tan())
        hat_RDJ = (1 + tangent_J) * self._generated(2 * tangent_J)
        if length % 2 == 0:
            limit_RD = self.step_D * (self.readout_RDN * self.input_DN).real.sum(-1)
            hat_RDJ = torch.cat([hat_RDJ, limit_RD[..., None].to(hat_RDJ.dtype)], -1)
        return torch.fft.irfft(hat_RDJ, length).to(dtype)

    def _generated(self, z_J: Tensor) -> Tensor:
        """The bracket (R, D, J): Cauchy sums of all pairs (C or P*, B or P), the rank eliminated one by one.

        For Re z >= 0 every pivot 1 + k(P*, P) has a real part of at least 1, so that no order of them is better.
        """
        left_XDN = torch.cat([self.readout_RDN, self.low_rank_QDN.conj()])
        right_YDN = torch.cat([self.input_DN[None], self.low_rank_QDN])
        dt_D1 = self.step_D[:, None]
        sums_XYDJ = cauchy(z_J, dt_D1 * self.eigenvalue_DN, dt_D1 * left_XDN[:, None] * right_YDN)
        k = [row_YDJ.unbind(0) for row_YDJ in sums_XYDJ.unbind(0)]
        for last in range(len(self.low_rank_QDN), 0, -1):
            *kept, bottom = k
            ratios = [below_DJ / (1 + bottom[last]) for below_DJ in bottom[:last]]
            k = [tuple(row[at] - row[last] * ratios[at] for at in range(last)) for row in kept]
        return torch.stack([row[0] for row in k])

    def discrete(self) -> Discrete:
        """The bilinear rule, by Woodbury's identity."""
        dt_D1, P_QDN, B_DN = self.step_D[:, None], self.low_rank_QDN, self.input_DN
        E_DN = (1 - 0.5 * dt_D1 * self.eigenvalue_DN).reciprocal()
        PE_QDN = E_DN * P_QDN.conj()
        core_DQQ = 2 * (PE_QDN[:, None] * P_QDN).sum(-1).real.permute(2, 0, 1)
        core_DQQ = core_DQQ + torch.diag_embed((2 / dt_D1).expand(-1, len(P_QDN)))
        W_QQD = (core_DQQ.reciprocal() if len(P_QDN) == 1 else torch.linalg.inv(core_DQQ)).permute(1, 2, 0)
        PW_QDN = (P_QDN[:, None] * W_QQD[..., None]).sum(0)
        less_DN = (PW_QDN * (2 * (PE_QDN * B_DN).sum(-1, keepdim=True).real)).sum(0)
        return Discrete(2 * E_DN - 1, 4 * E_DN * PW_QDN, PE_QDN, dt_D1 * E_DN * (B_DN - less_DN), 2 * self.readout_RDN)

    def untied(self, length: int) -> "System":
        """The same with C in place of C~ = C (1 - A-bar^length)."""
        A_DMM, _, C_RDM = self.discrete().dense()
        less_DMM = torch.eye(A_DMM.shape[-1], dtype=A_DMM.dtype, device=A_DMM.device) - power(A_DMM, length)
        free_DMR = torch.linalg.solve(less_DMM.mT, C_RDM.permute(1, 2, 0))
        return self._replace(readout_RDN=_readout(free_DMR.permute(2, 0, 1)))

    def tied(self, length: int) -> "System":
        """The same with C~ = C (1 - A-bar^length) in place of C."""
        A_DMM, _, C_RDM = self.discrete().dense()
        return self._replace(readout_RDN=_readout(C_RDM - _through(C_RDM, power(A_DMM, length))))

    def lengthened(self, length: int, least: int) -> tuple["System", int]:
        """C~ of a length doubled until it is at least ``least``, and that length: C~ <- C~ (1 + A-bar^length)."""
        A_DMM, _, C_RDM = self.discrete().dense()
        power_DMM = power(A_DMM, length)
        while length < least:
            C_RDM, length = C_RDM + _through(C_RDM, power_DMM), 2 * length
            if length < least:
                power_DMM = power_DMM @ power_DMM
        return self._replace(readout_RDN=_readout(C_RDM)), length


def circle(length: int, dtype: torch.dtype) -> tuple[int, float]:
    """How many points, and the logarithm of their radius, for a kernel in this precision."""
    n = fast_length(length if dtype == torch.float32 else 3 * length)
    return n, -52 * math.log(2) / (n + length)


def power(A_DMM: Tensor, exponent: int) -> Tensor:
    """A^exponent by squaring; 1 or more."""
    result_DMM = None
    while True:
        if exponent % 2:
            result_DMM = A_DMM if result_DMM is None else result_DMM @ A_DMM
        exponent //= 2
        if not exponent:
            return A_DMM if result_DMM is None else result_DMM
        A_DMM = A_DMM @ A_DMM


def products(exponent: int) -> int:
    """Matrix products that ``power`` takes."""
    return exponent.bit_length() + exponent.bit_count() - 2


def resume(
    model: Discrete, u_BTD: Tensor, h_BDN2: Tensor, lengths_B: Tensor | None, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Outputs (without a skip) of inputs that go on from a state, and the state after each row's last input.

    Rows are padded with zeros to the right.
    """
    u_BTD, h_BDN = u_BTD.to(h_BDN2.dtype), torch.view_as_complex(h_BDN2)
    if u_BTD.shape[1] <= SHORT:
        y_BTD, h_BDN = steps(model.to(kind), u_BTD, h_BDN, lengths_B)
        return y_BTD, torch.view_as_real(h_BDN)
    y_BTD, before_KBDN = blocks(model, u_BTD, h_BDN)
    T = u_BTD.shape[1]
    full_B = torch.full((len(u_BTD),), T, device=u_BTD.device) if lengths_B is None else lengths_B
    row_B, rest = torch.arange(len(u_BTD), device=u_BTD.device), T % CHUNK if lengths_B is None else CHUNK - 1
    at_BC = (full_B // CHUNK * CHUNK)[:, None] + torch.arange(rest, device=u_BTD.device)
    last_BCD = u_BTD[row_B[:, None], at_BC.clamp_max(T - 1)]
    h_BDN = before_KBDN[full_B // CHUNK, row_B]
    if rest:
        h_BDN = steps(model.to(kind), last_BCD, h_BDN, full_B % CHUNK)[1]
    return y_BTD, torch.view_as_real(h_BDN)


def steps(model: Discrete, u_BTD: Tensor, h_BDN: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """A few inputs, one after the other: the outputs, and the state after each row's last."""
    outputs, c_DN = [], model.c_RDN[0]
    for at, u_BD in enumerate(u_BTD.unbind(1)):
        new_BDN = model.a_DN * h_BDN + model.b_DN * u_BD[..., None]
        for u_DN, q_DN in zip(model.u_QDN, model.q_QDN, strict=True):
            new_BDN = new_BDN - u_DN * (q_DN * h_BDN).real.sum(-1, keepdim=True)
        outputs.append((new_BDN * c_DN).real.sum(-1))
        h_BDN = new_BDN if lengths_B is None else torch.where((at < lengths_B)[:, None, None], new_BDN, h_BDN)
    return torch.stack(outputs, 1), h_BDN


def blocks(model: Discrete, u_BTD: Tensor, h_BDN: Tensor) -> tuple[Tensor, Tensor]:
    """Many inputs by dense matrices of C columns: the outputs, and the states before each chunk and after the last."""
    B, T, D = u_BTD.shape
    dtype, count = u_BTD.dtype, -(-T // CHUNK)
    A_DMM, b_DM, c_RDM = model.dense()
    reach_DMC, seen_DCM, power_DMM = _krylov(A_DMM, b_DM, c_RDM[0])
    taps_DC = torch.cat([(c_RDM[0] * b_DM).sum(-1)[:, None], (seen_DCM[:, :-1] @ b_DM[..., None])[..., 0]], 1)
    lag_CC = torch.arange(CHUNK, device=u_BTD.device) - torch.arange(CHUNK, device=u_BTD.device)[:, None]
    within_DCC = torch.where(lag_CC >= 0, taps_DC[:, lag_CC.clamp_min(0)], 0.0).to(dtype)
    reach_DCM, seen_DMC, power_DMM = (x.to(dtype) for x in (reach_DMC.flip(-1).mT, seen_DCM.mT, power_DMM.mT))
    u_KDBC = pad(u_BTD, (0, 0, 0, count * CHUNK - T)).unflatten(1, (count, CHUNK)).permute(1, 3, 0, 2)
    x_DBM, states, outputs = _stacked(h_BDN).transpose(0, 1), [], []
    for u_DBC in u_KDBC.unbind(0):
        states.append(x_DBM)
        outputs.append(u_DBC @ within_DCC + x_DBM @ seen_DMC)
        x_DBM = x_DBM @ power_DMM + u_DBC @ reach_DCM
    y_BTD = torch.stack(outputs, 0).permute(2, 0, 3, 1).reshape(B, -1, D)[:, :T]
    x_KBDM = torch.stack([*states, x_DBM]).transpose(1, 2)
    return y_BTD, torch.complex(*x_KBDM.chunk(2, -1))


def _krylov(A_DMM: Tensor, b_DM: Tensor, c_DM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(b, A b, ... A^{C-1} b), (c A; ... c A^C) and A^C by doubling."""
    reach_DMC, seen_DCM = b_DM[..., None], c_DM[:, None] @ A_DMM
    while reach_DMC.shape[-1] < CHUNK:
        reach_DMC = torch.cat([reach_DMC, A_DMM @ reach_DMC], -1)
        seen_DCM = torch.cat([seen_DCM, seen_DCM @ A_DMM], -2)
        A_DMM = A_DMM @ A_DMM
    return reach_DMC, seen_DCM, A_DMM


def _through(C_RDM: Tensor, A_DMM: Tensor) -> Tensor:
    """C A for every readout."""
    return (C_RDM.transpose(0, 1) @ A_DMM).transpose(0, 1)


def _stacked(x: Tensor) -> Tensor:
    """Real coordinates of complex ones."""
    return torch.cat([x.real, x.imag], -1)


def _readout(C_RDM: Tensor) -> Tensor:
    """C of y = 2 Re C x from its real coordinates."""
    real, imaginary = C_RDM.chunk(2, -1)
    return 0.5 * torch.complex(real, -imaginary)
