"""A Monarch matrix times columns: two block-diagonal products with a permutation between them.

    z_ik = sum_j right_ikj x_ij        y_lk = sum_i left_kli z_ik        (n = i J + j in, m = l K + k out)

As a dense matrix M[(l, k), (i, j)] = left_kli right_ikj: a block of the right factor reads the low digit of a position,
one of the left factor the high digit. It costs n K + m I multiply-adds a column instead of n m: 2 n^1.5 for square
blocks. ``reverse_in`` reads the digits of n in the other order (n = j I + i), ``reverse_out`` writes those of m so
(m = k L + l): with both, products, transposes and inverses of blocks are Monarch matrices again.

Shapes: A batch, N = I J rows in, M = L K rows out, C columns; I, J high and low digit in, L, K high and low digit out;
X = A C columns of a tile.
Source: Fu et al., "Monarch Mixer: a simple sub-quadratic GEMM-based architecture", 2023, arXiv:2310.12109, section 3.1;
Dao et al., "Monarch: expressive structured matrices for efficient and accurate training", 2022, arXiv:2204.00595,
section 3 (rectangular blocks: appendix C).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.core import counting
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel


@kernel
def monarch(
    x_ANC: Tensor, left_KLI: Tensor, right_IKJ: Tensor, reverse_in: bool = False, reverse_out: bool = False
) -> Tensor:
    """Multiply along the middle axis: (A, I J, C) -> (A, L K, C). Rows of a matrix are (A, N, 1).

    Args:
        x_ANC: inputs.
        left_KLI: K blocks of (L, I), on the high digit.
        right_IKJ: I blocks of (K, J), on the low digit.
        reverse_in: the low digit of the input comes first.
        reverse_out: the low digit of the output comes first.
    """
    check(x_ANC, left_KLI, right_IKJ)
    dtype = result_dtype(x_ANC, left_KLI, right_IKJ)
    x_AIJC = digits(x_ANC.to(dtype), right_IKJ.shape[0], right_IKJ.shape[2], reverse_in)
    z_AIKC = torch.einsum("ikj,aijc->aikc", right_IKJ.to(dtype), x_AIJC)
    y_ALKC = torch.einsum("kli,aikc->alkc", left_KLI.to(dtype), z_AIKC)
    return (y_ALKC.transpose(1, 2) if reverse_out else y_ALKC).flatten(1, 2).contiguous()


@kernel
def monarch_backward(
    dy_AMC: Tensor,
    x_ANC: Tensor,
    left_KLI: Tensor,
    right_IKJ: Tensor,
    reverse_in: bool = False,
    reverse_out: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for x and both factors; the product between the factors is computed again, not kept."""
    (K, L, I), J = left_KLI.shape, right_IKJ.shape[2]
    dtype = torch.promote_types(dy_AMC.dtype, result_dtype(x_ANC, left_KLI, right_IKJ))
    left, right = left_KLI.to(dtype), right_IKJ.to(dtype)
    x_AIJC = digits(x_ANC.to(dtype), I, J, reverse_in)
    dy_ALKC = digits(dy_AMC.to(dtype), L, K, reverse_out)
    z_AIKC = torch.einsum("ikj,aijc->aikc", right, x_AIJC)
    dleft = torch.einsum("alkc,aikc->kli", dy_ALKC, z_AIKC.conj())
    dz_AIKC = torch.einsum("kli,alkc->aikc", left.conj(), dy_ALKC)
    dright = torch.einsum("aikc,aijc->ikj", dz_AIKC, x_AIJC.conj())
    dx_AIJC = torch.einsum("ikj,aikc->aijc", right.conj(), dz_AIKC)
    dx_ANC = (dx_AIJC.transpose(1, 2) if reverse_in else dx_AIJC).flatten(1, 2)
    pairs = ((dx_ANC, x_ANC), (dleft, left_KLI), (dright, right_IKJ))
    dx, dleft, dright = (_like(grad, value) for grad, value in pairs)
    return dx, dleft, dright


def digits(x_ANC: Tensor, high: int, low: int, reverse: bool) -> Tensor:
    """(A, N, C) as (A, high, low, C), whichever digit lies first in memory."""
    return x_ANC.unflatten(1, (low, high)).transpose(1, 2) if reverse else x_ANC.unflatten(1, (high, low))


def check(x_ANC: Tensor, left_KLI: Tensor, right_IKJ: Tensor) -> None:
    """Refuse factors that do not fit each other or the input."""
    if left_KLI.ndim != 3 or right_IKJ.ndim != 3 or left_KLI.shape[::2] != right_IKJ.shape[1::-1]:
        shapes = f"{tuple(left_KLI.shape)} and {tuple(right_IKJ.shape)}"
        raise ConfigError(f"monarch: the factors left (K, L, I) and right (I, K, J) do not fit: {shapes}")
    rows = right_IKJ.shape[0] * right_IKJ.shape[2]
    if x_ANC.ndim != 3 or x_ANC.shape[1] != rows:
        raise ConfigError(f"monarch: x_ANC must have {rows} rows on its middle axis, not {tuple(x_ANC.shape)}")


def result_dtype(*tensors: Tensor) -> torch.dtype:
    """What the product is computed in."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


@monarch.shapes
def shapes(x_ANC, left_KLI, right_IKJ, reverse_in=False, reverse_out=False):
    (A, _, C), (K, L, _) = x_ANC.shape, left_KLI.shape
    return x_ANC.new_empty((A, L * K, C), dtype=result_dtype(x_ANC, left_KLI, right_IKJ))


@monarch_backward.shapes
def backward_shapes(dy_AMC, x_ANC, left_KLI, right_IKJ, reverse_in=False, reverse_out=False):
    return tuple(value.new_empty(value.shape) for value in (x_ANC, left_KLI, right_IKJ))


@monarch.vjp(outputs=())
def backward(grads, inputs, outputs):
    return *monarch_backward(grads[0], *inputs), None, None


@monarch.cost
def cost(x_ANC, left_KLI, right_IKJ, reverse_in=False, reverse_out=False) -> Cost:
    (A, N, C), (K, L, I) = x_ANC.shape, left_KLI.shape
    dtype = result_dtype(x_ANC, left_KLI, right_IKJ)
    macs = A * C * (N * K + L * K * I) * (4 if dtype.is_complex else 1)
    out = A * C * L * K * dtype.itemsize
    return Cost(macs, x_ANC.nbytes + left_KLI.nbytes + right_IKJ.nbytes + out)


@monarch_backward.cost
def backward_cost(dy_AMC, x_ANC, left_KLI, right_IKJ, reverse_in=False, reverse_out=False) -> Cost:
    (A, N, C), (K, L, I) = x_ANC.shape, left_KLI.shape
    kind = 4 if result_dtype(x_ANC, left_KLI, right_IKJ).is_complex else 1
    macs = A * C * (3 * N * K + 2 * L * K * I) * kind
    return Cost(macs, dy_AMC.nbytes + 2 * (x_ANC.nbytes + left_KLI.nbytes + right_IKJ.nbytes))


@monarch.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | bool, ...]]:
    """A, C and the digits I, J, L, K: nothing, one column, rows of a matrix, rectangles, both orders of digits."""
    sizes = (
        (0, 3, 2, 2, 2, 2, False, False),
        (2, 3, 2, 3, 3, 2, False, False),
        (1, 1, 1, 1, 1, 1, False, False),
        (2, 0, 2, 2, 2, 2, True, False),
        (7, 1, 4, 5, 3, 7, False, True),
        (150, 1, 12, 13, 11, 14, False, False),
        (150, 1, 13, 12, 14, 11, True, True),
        (3, 50, 12, 13, 14, 11, True, False),
        (2, 70, 13, 12, 12, 15, False, True),
        (40, 5, 13, 12, 12, 15, True, True),
        (1, 700, 16, 16, 16, 16, False, False),
    )
    for A, C, I, J, L, K, reverse_in, reverse_out in sizes:
        shapes = ((A, I * J, C), (K, L, I), (I, K, J))
        x, left, right = (torch.randn(shape, generator=rng, dtype=dtype) for shape in shapes)
        yield x, left * I**-0.5, right * J**-0.5, reverse_in, reverse_out


@monarch_backward.cases
def backward_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | bool, ...]]:
    """Adjoints of the product's own cases."""
    for x_ANC, left_KLI, *rest in cases(rng, dtype):
        shape = len(x_ANC), left_KLI.shape[0] * left_KLI.shape[1], x_ANC.shape[2]
        yield torch.randn(shape, generator=rng, dtype=dtype), x_ANC, left_KLI, *rest


@counting.addend("seqloom::monarch")
def _macs(args: tuple, out: Tensor) -> int:
    return monarch.floor(*args).macs


@counting.addend("seqloom::monarch_backward")
def _backward_macs(args: tuple, out: tuple[Tensor, ...]) -> int:
    return monarch_backward.floor(*args).macs


def _like(grad: Tensor, value: Tensor) -> Tensor:
    """A gradient with the dtype of its input: a real input has a real one."""
    grad = grad.real if grad.is_complex() and not value.is_complex() else grad
    return grad.to(value.dtype).contiguous()
