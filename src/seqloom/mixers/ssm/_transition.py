"""Transition matrices of polynomial memories, their normal-plus-low-rank form, and starting spectra.

    x'(t) = A x(t) + B u(t)

    legs      A_nk = -sqrt((2n+1)(2k+1)) (n > k), -(n+1) (n = k), 0 (n < k)     B_n = sqrt(2n+1)   all of the past
    legt      A_nk = -sqrt((2n+1)(2k+1)) s_nk / w      B_n = sqrt(2n+1) / w     the last w, s = 1 (n >= k), (-1)^(n-k)
    lmu       A_nk = -(2n+1) s_nk / w                  B_n = (2n+1) / w         the same in Legendre's own scale
    lagt      A_nk = -1 (n > k), -1/2 (n = k), 0       B_n = 1                  a past that fades exponentially
    fourier   A = (2/w) (R - b b^T), B = (2/w) b,  b = (1, 0, sqrt 2, 0, sqrt 2, ...), R turning pair k by pi k

    A = S - P^T P    with S normal: V* S V = diag(L)      legs, fourier: rank 1;  legt: rank 2
    diagonal starts  lin -1/2 + i pi n    inv -1/2 + (2 N / pi) (2 N / (2n+1) - 1) i    real -(n+1)    legs: the L above

n counts rows, k columns, both from 0; legs in the time-scaled system x' = (A x + B u) / t is the optimal projection.
Everything is float64. Shapes: N state size, H = N / 2 of it one of each conjugate pair, r rank.
Source: Gu, Dao, Ermon, Rudra, Ré, "HiPPO", 2020, arXiv:2008.07669, appendix D; Gu, Goel, Ré, 2022, arXiv:2111.00396,
appendix B; Gu, Johnson, Timalsina, Rudra, Ré, "How to train your HiPPO", 2022, arXiv:2206.12037 (fourier); Voelker,
Kajić, Eliasmith, "Legendre memory units", 2019 (lmu); Gu, Goel, Gupta, Ré, 2022, arXiv:2206.11893 (diagonal starts).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError

Memory = Literal["legs", "legt", "lmu", "lagt", "fourier"]
LowRank = Literal["legs", "legt", "fourier"]
Spectrum = Literal["lin", "inv", "legs", "real"]


class NormalLowRank(NamedTuple):
    """A = V (diag L - P* P) V* on one half of the conjugate pairs, those with negative imaginary part."""

    eigenvalue_H: Tensor
    """Of the normal part."""
    low_rank_RH: Tensor
    """V* P, complex."""
    input_H: Tensor
    """V* B, complex."""
    basis_NH: Tensor
    """V's columns: x = 2 Re V z."""


def transition(kind: Memory, size: int, window: float = 1.0) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N,) of a memory; ``window`` is the length w that a sliding one sees."""
    if size < 1 or window <= 0:
        raise ConfigError(f"a memory needs at least one coefficient and a positive window, not {size} and {window}")
    n = torch.arange(size, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    if kind == "legs":
        return -torch.outer(root, root).tril(-1) - torch.diag(n + 1), root
    if kind == "lagt":
        return -torch.ones(size, size, dtype=torch.float64).tril(-1) - 0.5 * torch.eye(size).double(), n * 0 + 1
    if kind == "fourier":
        pair = torch.zeros(size, dtype=torch.float64)  # pair k sits at 2k, 2k + 1; the sine of frequency 0 is unused
        pair[0::2] = math.sqrt(2)
        pair[0] = 1
        turn = torch.zeros(size - 1, dtype=torch.float64)
        turn[0::2] = torch.arange(len(turn[0::2])).double()
        skew = math.pi * (torch.diag(turn, -1) - torch.diag(turn, 1))
        return 2 / window * (skew - torch.outer(pair, pair)), 2 / window * pair
    sign = torch.where(n[:, None] >= n, 1.0, (-1.0) ** (n[:, None] - n))
    if kind == "legt":
        return -torch.outer(root, root) * sign / window, root / window
    if kind == "lmu":
        return -(2 * n[:, None] + 1) * sign / window, (2 * n + 1) / window
    raise ConfigError(f"there is no memory {kind!r}; there are legs, legt, lmu, lagt and fourier")


def low_rank(kind: LowRank, size: int, window: float = 1.0) -> Tensor:
    """P (r, N), real: A + P^T P is normal."""
    n = torch.arange(size, dtype=torch.float64)
    if kind == "legs":
        return torch.sqrt(n + 0.5)[None]
    if kind == "fourier":
        return (transition(kind, size, window)[1] / math.sqrt(2 / window))[None]
    if kind == "legt":
        even = n % 2 == 0
        root = torch.sqrt((2 * n + 1) / window)
        return torch.stack([root * even, root * ~even])
    raise ConfigError(f"there is no low-rank form of {kind!r}; there are legs, legt and fourier")


def normal_low_rank(kind: LowRank, size: int, window: float = 1.0) -> NormalLowRank:
    """The memory in the eigenbasis of its normal part, one mode of each conjugate pair."""
    if size % 2:
        raise ConfigError(f"the state size must be even, not {size}: modes come in conjugate pairs")
    A_NN, B_N = transition(kind, size, window)
    P_RN = low_rank(kind, size, window)
    normal_NN = A_NN + P_RN.T @ P_RN
    shift = normal_NN.diagonal().mean()  # skew but for a multiple of one
    frequency_N, basis_NN = torch.linalg.eigh(-1j * (normal_NN - shift * torch.eye(size)))
    half = size // 2
    frequency_H, basis_NH = frequency_N[:half], basis_NN[:, :half].clone()
    if frequency_H[-1].abs() <= 1e-9 * frequency_N.abs().max():  # a pair of zeros: its two vectors must be conjugate
        plane_N2 = basis_NN[:, half - 1 : half + 1]
        real_N2 = torch.linalg.svd(torch.cat([plane_N2.real, plane_N2.imag], 1)).U[:, :2]
        basis_NH[:, -1] = torch.complex(real_N2[:, 0], real_N2[:, 1]) / math.sqrt(2)
        frequency_H[-1] = 0
    eigenvalue_H = torch.complex(shift.expand(half), frequency_H)
    back_HN = basis_NH.conj().T
    return NormalLowRank(
        eigenvalue_H, (back_HN @ P_RN.T.to(back_HN.dtype)).T, back_HN @ B_N.to(back_HN.dtype), basis_NH
    )


def eigenvalues(kind: Spectrum, modes: int) -> Tensor:
    """Eigenvalues (complex128) of a diagonal start, one of each conjugate pair, here with positive imaginary parts."""
    n = torch.arange(modes, dtype=torch.float64)
    if kind == "real":
        return torch.complex(-(n + 1), torch.zeros_like(n))
    if kind == "lin":
        imaginary = math.pi * n
    elif kind == "inv":
        imaginary = 2 * modes / math.pi * (2 * modes / (2 * n + 1) - 1)
    elif kind == "legs":
        imaginary = -normal_low_rank("legs", 2 * modes).eigenvalue_H.imag.flip(0)
    else:
        raise ConfigError(f"there is no spectrum {kind!r}; there are lin, inv, legs and real")
    return torch.complex(torch.full_like(n, -0.5), imaginary)


def discretise(A_NN: Tensor, B_N: Tensor, step: Tensor, alpha: float = 0.5) -> tuple[Tensor, Tensor]:
    """The generalised bilinear rule: A-bar (..., N, N) and B-bar (..., N) for steps of any shape.

        A-bar = (I - a dt A)^{-1} (I + (1 - a) dt A)        B-bar = dt (I - a dt A)^{-1} B

    alpha 0 is Euler's rule, 1/2 the bilinear one, 1 the backward rule.
    """
    one_NN = torch.eye(len(A_NN), dtype=A_NN.dtype)
    dt = step.to(A_NN.dtype)[..., None, None]
    left = one_NN - alpha * dt * A_NN
    return torch.linalg.solve(left, one_NN + (1 - alpha) * dt * A_NN), torch.linalg.solve(left, dt[..., 0] * B_N)
