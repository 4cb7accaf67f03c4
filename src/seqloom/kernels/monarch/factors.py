"""Factors of Monarch matrices with a meaning: transforms, triangular ones and their inverses, and the dense matrix.

    M = dense(left, right)        F x = monarch(x, *dft(I, J), reverse_in=True)
    x = monarch(monarch(x, left, right), *invert(left, right), True, True)      left and right lower triangular

Where every block is lower triangular, M is lower triangular in the natural order of positions (output (l, k) reads
inputs (i, j) with i <= l and j <= k), and so is its inverse: neither looks ahead, exactly.

Shapes: as in the kernel's ``__init__``; n = I J.
Source: Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965 (the transform);
Fu et al., "Monarch Mixer", 2023, arXiv:2310.12109, section 3.2 and appendix C (causal Monarch matrices).
"""

import math

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError


def split(size: int) -> tuple[int, int]:
    """High and low digit (I, J), nearly equal, with I J >= size: what lies beyond the size is padding."""
    if size < 1:
        raise ConfigError(f"monarch: size must be at least 1, not {size}")
    low = math.isqrt(size)
    return -(-size // low), low


def dense(left_KLI: Tensor, right_IKJ: Tensor, reverse_in: bool = False, reverse_out: bool = False) -> Tensor:
    """The matrix (L K, I J)."""
    matrix_LKIJ = torch.einsum("kli,ikj->lkij", left_KLI, right_IKJ)
    matrix_LKIJ = matrix_LKIJ.transpose(0, 1) if reverse_out else matrix_LKIJ
    matrix_LKIJ = matrix_LKIJ.transpose(2, 3) if reverse_in else matrix_LKIJ
    return matrix_LKIJ.flatten(2, 3).flatten(0, 1)


def dft(high: int, low: int, dtype: torch.dtype = torch.complex64) -> tuple[Tensor, Tensor]:
    """Factors of the discrete Fourier transform of high * low points, for ``reverse_in=True``.

    The factors that stand between the two transforms (twiddles) are part of the right one.
    """
    if high < 1 or low < 1 or not dtype.is_complex:
        raise ConfigError(f"monarch: dft needs positive digits and a complex dtype, not {high}, {low} and {dtype}")
    i_I, j_J = (torch.arange(size, dtype=torch.float64) for size in (high, low))
    turn_IKJ = torch.outer(j_J, j_J) / low + (i_I[:, None] * j_J / (high * low))[..., None]
    turn_LI = torch.outer(i_I, i_I) / high
    left_LI, right_IKJ = (torch.polar(torch.ones_like(turn), -2 * math.pi * turn) for turn in (turn_LI, turn_IKJ))
    return left_LI.expand(low, -1, -1).to(dtype).contiguous(), right_IKJ.to(dtype)


def invert(left_KLI: Tensor, right_IKJ: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the inverse of a lower triangular Monarch matrix, for ``reverse_in=True, reverse_out=True``.

    By triangular solves of the blocks alone: what stands above their diagonals is not read.
    """
    if left_KLI.shape[1] != left_KLI.shape[2] or right_IKJ.shape[1] != right_IKJ.shape[2]:
        raise ConfigError(f"monarch: invert needs square blocks, not {left_KLI.shape[1:]} and {right_IKJ.shape[1:]}")
    return _inverse(right_IKJ), _inverse(left_KLI)


def leading(left_KLI: Tensor, right_IKJ: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Factors of the upper left part of a square Monarch matrix: its first ``rows`` high digits."""
    return left_KLI[:, :rows, :rows], right_IKJ[:rows]


def _inverse(lower: Tensor) -> Tensor:
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
