import numba
import numpy as np
import torch
from torch import Tensor

from seqloom.kernels._numba import run


def refuses(lower_DQ: Tensor, diagonal_DN: Tensor, upper_DQ: Tensor, y_DNR: Tensor) -> str | None:
    if y_DNR.dtype not in (torch.float32, torch.float64):
        return f"made for float32 and float64, not {y_DNR.dtype}"
    if any(x.dtype != y_DNR.dtype for x in (lower_DQ, diagonal_DN, upper_DQ)):
        return "the inputs differ in dtype"
    return None if y_DNR.numel() else "nothing to solve"


def forward(lower_DQ: Tensor, diagonal_DN: Tensor, upper_DQ: Tensor, y_DNR: Tensor) -> Tensor:
    x_DNR = torch.clone(y_DNR.detach(), memory_format=torch.contiguous_format)
    sides = (x.detach().contiguous().numpy() for x in (lower_DQ, diagonal_DN, upper_DQ))
    run(_solve, _solve_parallel, x_DNR.numel(), *sides, x_DNR.numpy())
    return x_DNR


def _solve_body(lower, diagonal, upper, x):
    D, N, R = x.shape
    for d in numba.prange(D):
        pivot, first, second = np.empty(N, x.dtype), np.empty(N, x.dtype), np.zeros(N, x.dtype)
        kept = np.empty(R, x.dtype)
        p = diagonal[d, 0]
        q = upper[d, 0] if N > 1 else x.dtype.type(0)
        for i in range(N - 1):
            below, own = lower[d, i], diagonal[d, i + 1]
            beyond = upper[d, i + 1] if i + 2 < N else x.dtype.type(0)
            row, next_row = x[d, i], x[d, i + 1]
            if abs(below) > abs(p):
                factor = p / below
                pivot[i], first[i], second[i] = below, own, beyond
                p, q = q - factor * own, -factor * beyond
                kept[:] = next_row
                for r in range(R):
                    next_row[r] = row[r] - factor * kept[r]
                    row[r] = kept[r]
            else:
                factor = below / p
                pivot[i], first[i] = p, q
                p, q = own - factor * q, beyond
                for r in range(R):
                    next_row[r] -= factor * row[r]
        last = x[d, N - 1]
        for r in range(R):
            last[r] /= p
        for i in range(N - 2, -1, -1):
            row, one, two = x[d, i], x[d, i + 1], x[d, min(i + 2, N - 1)]  # beside the last row there is no second
            a, b, c = 1 / pivot[i], first[i], second[i]
            for r in range(R):
                row[r] = (row[r] - b * one[r] - c * two[r]) * a


# As numpy divides: a singular matrix gives infinities, not an error.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_solve = numba.njit(**_OPTIONS)(_solve_body)
_solve_parallel = numba.njit(parallel=True, **_OPTIONS)(_solve_body)
