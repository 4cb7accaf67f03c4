"""Sums of simple poles in conjugate pairs: the generating function of a diagonal-plus-low-rank state-space model.

    f_j = sum_n v_n / (z_j - w_n) + v_n* / (z_j - w_n*)

N counts **pairs**: one pole of each is passed and the conjugate term is added here, so nobody multiplies by two. A pair
is one quotient with real numerators,

    f_j = z_j sum_n a_n q_nj - sum_n b_n q_nj    q_nj = 1 / ((z_j - w_n)(z_j - w_n*))    a = 2 Re v    b = 2 Re(v w*) ,

and every row of numerators shares q: a point costs one division a pair and 4 multiply-adds a pair and row.

(N, J) never exists: points come in blocks, and the backward pass finds q anew, so that memory is O(N + J) a channel.
(The reference, where autograd differentiates it because no backend runs, keeps its blocks.) Close to a pole z - w loses
what z and w have in common, and far from all poles q is the square of something small: everything is float64 inside,
and only the result has the precision of v.

Shapes: D channels, N pairs of poles, J points (shared by all channels), R any rows in front (may be none), C points of
a block.
Source: Gu, Goel, Ré, "Efficiently modeling long sequences with structured state spaces", 2022, arXiv:2111.00396,
appendix C.3 (the sums; their Cauchy kernel); the pairing of terms and the blocks are ours.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.core import counting
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel

BLOCK = 1024


@kernel
def cauchy(z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> Tensor:
    """Return f (R, D, J), complex, in the precision of v. All inputs are complex.

    ``z_J`` and ``w_DN`` may be complex128 beside a complex64 v, and should be: near a pole their rounding counts.
    """
    _check(z_J, w_DN, v_RDN)
    w_DN1 = w_DN.to(torch.complex128)[..., None]
    v_DRN = _rows(v_RDN).to(torch.complex128)
    a_DRN, b_DRN = 2 * v_DRN.real, 2 * (v_DRN * w_DN1.mT.conj()).real
    blocks = []
    for z_C in z_J.to(torch.complex128).split(BLOCK):
        q_DNC = ((z_C - w_DN1) * (z_C - w_DN1.conj())).reciprocal()
        sums = [torch.complex(x_DRN @ q_DNC.real, x_DRN @ q_DNC.imag) for x_DRN in (a_DRN, b_DRN)]
        blocks.append(z_C * sums[0] - sums[1])
    f_RDJ = torch.cat(blocks, -1).transpose(0, 1).to(v_RDN.dtype)
    return f_RDJ.reshape(*v_RDN.shape[:-1], len(z_J)).contiguous()


@kernel
def cauchy_backward(df_RDJ: Tensor, z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of w and v: sums over points, m = sum_j g_j* / (z_j - w) + g_j / (z_j* - w), for w of the squares.

    A kernel of its own, so that a backend may fuse it; its second order is that of this body.
    """
    w_DN1 = w_DN.to(torch.complex128)[..., None]
    df_DRJ = _rows(df_RDJ).to(torch.complex128)
    sums_DRN = [torch.zeros_like(_rows(v_RDN), dtype=torch.complex128) for _ in range(2)]
    for z_C, df_DRC in zip(z_J.to(torch.complex128).split(BLOCK), df_DRJ.split(BLOCK, -1), strict=True):
        here_DNC, there_DNC = (z_C - w_DN1).reciprocal(), (z_C.conj() - w_DN1).reciprocal()
        for power in (1, 2):
            left_DRN = df_DRC.conj() @ (here_DNC**power).mT
            sums_DRN[power - 1] = sums_DRN[power - 1] + left_DRN + df_DRC @ (there_DNC**power).mT
    dv_DRN = sums_DRN[0].conj()
    dw_DN = (_rows(v_RDN) * sums_DRN[1]).sum(1).conj()
    dv_RDN = dv_DRN.transpose(0, 1).reshape(v_RDN.shape).to(v_RDN.dtype)
    return dw_DN.to(w_DN.dtype).resolve_conj(), dv_RDN.resolve_conj().contiguous()


def _rows(x_RDX: Tensor) -> Tensor:
    """(D, R, X): channels first, all rows behind them."""
    return (x_RDX.flatten(0, -3) if x_RDX.ndim > 2 else x_RDX[None]).transpose(0, 1)


def _check(z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> None:
    if not (z_J.is_complex() and w_DN.is_complex() and v_RDN.is_complex()):
        raise ConfigError(f"cauchy expects complex z, w and v, not {z_J.dtype}, {w_DN.dtype} and {v_RDN.dtype}")
    if z_J.ndim != 1 or w_DN.ndim != 2 or v_RDN.ndim < 2 or v_RDN.shape[-2:] != w_DN.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (z_J, w_DN, v_RDN))
        raise ConfigError(f"cauchy expects z (J,), w (D, N) and v (..., D, N), not {shapes}")


@cauchy.shapes
def shapes(z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> Tensor:
    return v_RDN.new_empty((*v_RDN.shape[:-1], len(z_J)))


@cauchy_backward.shapes
def backward_shapes(df_RDJ: Tensor, z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> tuple[Tensor, Tensor]:
    return w_DN.new_empty(w_DN.shape), v_RDN.new_empty(v_RDN.shape)


@cauchy.vjp(outputs=())
def backward(grads, inputs, outputs):
    (df_RDJ,), (z_J, w_DN, v_RDN) = grads, inputs
    dz_J = _points(df_RDJ, z_J, w_DN, v_RDN) if z_J.requires_grad else None
    return dz_J, *cauchy_backward(df_RDJ, z_J, w_DN, v_RDN)


def _points(df_RDJ: Tensor, z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> Tensor:
    """Gradient of the points, which a model's points, being fixed, never ask for."""
    w_DN1, v_DRN = w_DN.to(torch.complex128)[..., None], _rows(v_RDN).to(torch.complex128)
    df_DRJ, blocks = _rows(df_RDJ).to(torch.complex128), []
    for z_C, df_DRC in zip(z_J.to(torch.complex128).split(BLOCK), df_DRJ.split(BLOCK, -1), strict=True):
        near_DNC, far_DNC = (z_C - w_DN1).reciprocal() ** 2, (z_C - w_DN1.conj()).reciprocal() ** 2
        slope_DRC = v_DRN @ near_DNC + v_DRN.conj() @ far_DNC
        blocks.append(-(df_DRC * slope_DRC.conj()).sum((0, 1)))
    return torch.cat(blocks).to(z_J.dtype).resolve_conj()


@cauchy.cost
def cost(z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> Cost:
    outputs = v_RDN[..., 0].numel() * len(z_J)
    moved = z_J.nbytes + w_DN.nbytes + v_RDN.nbytes + outputs * v_RDN.element_size()
    return Cost(macs=4 * w_DN.shape[1] * outputs, bytes=moved)


@cauchy_backward.cost
def backward_cost(df_RDJ: Tensor, z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> Cost:
    moved = df_RDJ.nbytes + z_J.nbytes + 2 * w_DN.nbytes + 2 * v_RDN.nbytes
    return Cost(macs=8 * w_DN.shape[1] * df_RDJ.numel(), bytes=moved)


@cauchy.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """Smallest first, no points, no rows, blocks that end within; points on the imaginary axis and beside it."""
    sizes = (((), 1, 1, 1), ((), 2, 3, 4), ((2,), 2, 3, 0), ((0,), 2, 3, 5), ((4,), 3, 5, 37), ((2, 3), 2, 16, 301))
    kind = dtype.to_complex()
    for rows, D, N, J in sizes:
        real, imaginary = torch.rand(2, D, N, generator=rng, dtype=dtype)
        w_DN = torch.complex(-0.2 - real, 3 * imaginary)
        side, height = torch.rand(2, J, generator=rng, dtype=dtype)
        z_J = torch.complex(0.1 * side * (J % 2), 4 * height - 1)
        yield z_J, w_DN, torch.randn(*rows, D, N, generator=rng, dtype=kind)


@cauchy_backward.cases
def backward_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """Adjoints of the sum's own cases."""
    for z_J, w_DN, v_RDN in cases(rng, dtype):
        yield torch.randn(*v_RDN.shape[:-1], len(z_J), generator=rng, dtype=v_RDN.dtype), z_J, w_DN, v_RDN


@counting.addend("seqloom::cauchy")
def _macs(args: tuple[Any, ...], out: Tensor) -> int:
    return cauchy.floor(*args).macs


@counting.addend("seqloom::cauchy_backward")
def _backward_macs(args: tuple[Any, ...], out: Tensor) -> int:
    return cauchy_backward.floor(*args).macs
