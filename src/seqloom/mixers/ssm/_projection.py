"""What the coefficients of a polynomial memory stand for: the past that they reconstruct, and how they follow it.

    u(t - age) = sum_n c_n f_n(age)

    legs, legt  f_n = sqrt(2n+1) P_n(1 - 2 age / w)      w all of the past (legs), or the window
    lmu         f_n = P_n(1 - 2 age / w)
    lagt        f_n = exp(-age / 2 w) L_n(age / w)
    fourier     f_0 = 1, f_2k = sqrt 2 cos(2 pi k age / w), f_2k+1 = sqrt 2 sin(2 pi k age / w), f_1 = 0

Lower triangular memories (legs, lagt) need no matrix: with h the step (1/t for legs, 1/w for lagt) the bilinear rule
reads, coefficient after coefficient,

    (1 + h a_n / 2) c_n(t) = (1 - h a_n / 2) c_n(t-1) + h B_n u_t - (h / 2) p_n sum_{j < n} p_j (c_j(t) + c_j(t-1)) ,

N scalar recurrences over time whose factors no input changes: N scans, O(N) a position, exact at every t.
Shapes: B batch, T time, C channels, N coefficients, P ages.
Source: Gu, Dao, Ermon, Rudra, Ré, "HiPPO", 2020, arXiv:2008.07669, appendix D; the order of the recurrences is ours.
"""

import math

import torch
from torch import Tensor

from seqloom.kernels.linear_scan import linear_scan
from seqloom.mixers.ssm._transition import Memory, transition


def basis(kind: Memory, size: int, share_BP: Tensor) -> Tensor:
    """f_n (B, P, N) at ages given as shares of the window."""
    if kind == "fourier":
        turn_BPK = 2 * math.pi * share_BP[..., None] * torch.arange(-(-size // 2), device=share_BP.device)
        pair_BPK2 = math.sqrt(2) * torch.stack([turn_BPK.cos(), turn_BPK.sin()], -1)
        pair_BPK2[..., 0, :] /= math.sqrt(2)
        return pair_BPK2.flatten(-2)[..., :size]
    if kind == "lagt":
        return (-share_BP / 2).exp()[..., None] * _polynomials(size, 1 - share_BP, share_BP, laguerre=True)
    f_BPN = _polynomials(size, 1 - 2 * share_BP, share_BP, laguerre=False)
    n_N = torch.arange(size, device=share_BP.device, dtype=share_BP.dtype)
    return f_BPN if kind == "lmu" else f_BPN * torch.sqrt(2 * n_N + 1)


def _polynomials(size: int, first_BP: Tensor, share_BP: Tensor, *, laguerre: bool) -> Tensor:
    """Legendre's or Laguerre's polynomials by their recurrences of three terms."""
    values = [torch.ones_like(first_BP), first_BP]
    for n in range(1, size - 1):
        slope_BP = 2 * n + 1 - share_BP if laguerre else (2 * n + 1) * first_BP
        values.append((slope_BP * values[-1] - n * values[-2]) / (n + 1))
    return torch.stack(values[:size], -1)


def follow(kind: Memory, step_BT: Tensor, u_BTC: Tensor, c_BCN: Tensor) -> Tensor:
    """Every c (B, T, C, N) of a lower triangular memory (legs, lagt) at steps that may change with time."""
    N = c_BCN.shape[2]
    n_N = torch.arange(N, device=u_BTC.device, dtype=u_BTC.dtype)
    rate_N, root_N = (n_N + 1, torch.sqrt(2 * n_N + 1)) if kind == "legs" else (0.5 + 0 * n_N, 1 + 0 * n_N)
    half_BTN = 0.5 * step_BT[..., None] * rate_N
    decays = ((1 - half_BTN) / (1 + half_BTN)).unbind(2)
    gains = (step_BT[..., None] * root_N / (1 + half_BTN)).unbind(2)  # B is p in both memories
    rest_BTC, found = u_BTC, []
    for n, (decay_BT, gain_BT) in enumerate(zip(decays, gains, strict=True)):
        drive_BTC = gain_BT[..., None] * rest_BTC
        new_BTC, _ = linear_scan(decay_BT[..., None].expand_as(drive_BTC), drive_BTC, c_BCN[..., n].contiguous())
        old_BTC = torch.cat([c_BCN[:, None, :, n], new_BTC[:, :-1]], 1)
        rest_BTC = torch.sub(rest_BTC, new_BTC + old_BTC, alpha=0.5 * (math.sqrt(2 * n + 1) if kind == "legs" else 1))
        found.append(new_BTC)
    return torch.stack(found, -1)


def follow_one(kind: Memory, step_B: Tensor, u_BC: Tensor, c_BCN: Tensor) -> Tensor:
    """The next c (B, C, N) as one triangular solve a row: for a single position quicker than N scans."""
    A_NN, B_N = (x.to(u_BC) for x in transition(kind, c_BCN.shape[2]))
    half_BNN = 0.5 * step_B[:, None, None] * A_NN
    one_NN = torch.eye(len(A_NN), dtype=u_BC.dtype, device=u_BC.device)
    driven_BNC = (step_B[:, None] * B_N)[..., None] * u_BC[:, None]
    right_BNC = (one_NN + half_BNN) @ c_BCN.mT + driven_BNC
    return torch.linalg.solve_triangular(one_NN - half_BNN, right_BNC, upper=False).mT
