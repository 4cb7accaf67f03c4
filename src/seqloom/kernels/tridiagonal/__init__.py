"""Tridiagonal systems by elimination with row exchanges, many channels and many right-hand sides at once.

    T x = y        T_{i, i-1} = lower_{i-1},   T_{i, i} = diagonal_i,   T_{i, i+1} = upper_i

Elimination takes the larger of the two candidate pivots of a column, so that a zero on the diagonal is no obstacle (the
matrix of HiPPO-LegT has nothing but zeros there) and only a singular matrix is; a third diagonal fills in above. The
inverse of a tridiagonal matrix is dense, so that this is a product with a structured dense matrix in O(N).

Shapes: D channels, N rows, Q = N - 1 entries beside the diagonal, R right-hand sides.
Source: Thomas, 1949; with exchanges: Anderson et al., "LAPACK users' guide", 1999, routine gtsv.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel


@kernel
def tridiagonal(lower_DQ: Tensor, diagonal_DN: Tensor, upper_DQ: Tensor, y_DNR: Tensor) -> Tensor:
    """Return x (D, N, R). A singular matrix gives infinities or NaN, as a division by zero does."""
    check(lower_DQ, diagonal_DN, upper_DQ, y_DNR)
    N = diagonal_DN.shape[1]
    if not y_DNR.numel():
        return y_DNR.clone(memory_format=torch.contiguous_format)
    zero_D = torch.zeros_like(diagonal_DN[:, 0])
    upper_D = [*upper_DQ.unbind(1), zero_D]
    pivot_D, first_D, second_D, y_DR = diagonal_DN[:, 0], upper_D[0], zero_D, y_DNR[:, 0]
    rows = []
    for i in range(N - 1):
        above, below = (
            (pivot_D, first_D, second_D, y_DR),
            (lower_DQ[:, i], diagonal_DN[:, i + 1], upper_D[i + 1], y_DNR[:, i + 1]),
        )
        exchange_D = below[0].abs() > above[0].abs()
        top = [torch.where(_like(exchange_D, a), b, a) for a, b in zip(above, below, strict=True)]
        rest = [torch.where(_like(exchange_D, a), a, b) for a, b in zip(above, below, strict=True)]
        factor_D = rest[0] / top[0]
        rows.append(top)
        pivot_D, first_D = rest[1] - factor_D * top[1], rest[2] - factor_D * top[2]
        second_D, y_DR = zero_D, rest[3] - factor_D[:, None] * top[3]
    x = [y_DR / pivot_D[:, None], torch.zeros_like(y_DR)]
    for pivot_D, first_D, second_D, y_DR in reversed(rows):
        x.insert(0, (y_DR - first_D[:, None] * x[0] - second_D[:, None] * x[1]) / pivot_D[:, None])
    return torch.stack(x[:-1], 1)


def check(lower_DQ: Tensor, diagonal_DN: Tensor, upper_DQ: Tensor, y_DNR: Tensor) -> None:
    """ConfigError where the shapes are not those of the module's docstring."""
    D, N = diagonal_DN.shape
    sides = (D, max(N - 1, 0))
    if lower_DQ.shape != sides or upper_DQ.shape != sides or y_DNR.ndim != 3 or y_DNR.shape[:2] != (D, N):
        shapes = ", ".join(str(tuple(x.shape)) for x in (lower_DQ, upper_DQ, y_DNR))
        raise ConfigError(f"a diagonal of {(D, N)} needs {sides} beside it and {(D, N)} rows of y, not {shapes}")


def _like(which_D: Tensor, x: Tensor) -> Tensor:
    return which_D if x.ndim == 1 else which_D[:, None]


@tridiagonal.shapes
def shapes(lower_DQ: Tensor, diagonal_DN: Tensor, upper_DQ: Tensor, y_DNR: Tensor) -> Tensor:
    return y_DNR.new_empty(y_DNR.shape)


@tridiagonal.vjp(inputs=("lower_DQ", "diagonal_DN", "upper_DQ"))
def backward(grads, inputs, outputs):
    """The adjoint is the transposed system: dy = T^{-T} dx and dT = - dy x^T on the three diagonals."""
    (dx_DNR,), (lower_DQ, diagonal_DN, upper_DQ, _), (x_DNR,) = grads, inputs, outputs
    dy_DNR = tridiagonal(upper_DQ, diagonal_DN, lower_DQ, dx_DNR)
    dlower_DQ = -(dy_DNR[:, 1:] * x_DNR[:, :-1]).sum(2)
    dupper_DQ = -(dy_DNR[:, :-1] * x_DNR[:, 1:]).sum(2)
    return dlower_DQ, -(dy_DNR * x_DNR).sum(2), dupper_DQ, dy_DNR


@tridiagonal.cost
def cost(lower_DQ: Tensor, diagonal_DN: Tensor, upper_DQ: Tensor, y_DNR: Tensor) -> Cost:
    """Without exchanges: two products to eliminate a row, and two a right-hand side, a division included."""
    macs = 2 * diagonal_DN.numel() + 3 * y_DNR.numel()
    return Cost(macs, sum(x.nbytes for x in (lower_DQ, diagonal_DN, upper_DQ)) + 2 * y_DNR.nbytes)


@tridiagonal.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """Smallest first; zeros on the diagonal; no right-hand side; one row."""
    for D, N, R in (1, 1, 1), (2, 4, 3), (3, 1, 2), (2, 7, 0), (3, 33, 5), (7, 64, 1):
        lower_DQ, upper_DQ = (torch.randn(D, N - 1, generator=rng, dtype=dtype) + 3 for _ in range(2))
        diagonal_DN = torch.randn(D, N, generator=rng, dtype=dtype)
        diagonal_DN[:, 2::3] = 0
        yield lower_DQ, diagonal_DN, -upper_DQ, torch.randn(D, N, R, generator=rng, dtype=dtype)
