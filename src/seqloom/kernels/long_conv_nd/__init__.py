"""Depthwise convolution on a grid of one to three axes, by a kernel that is a sum of products of the axes' kernels.

    y_x = sum_l K_l u_{x - l} + s u_x        K_l = sum_r k1_{r, l1} k2_{r, l2} k3_{r, l3}

Every axis has taps on both sides: tap w of an axis acts at lag w - M, so that its first M taps read what follows.
Outside the grid u is zero: nothing wraps around. There are two forms, and the operations are counted to choose:

    passes       R times one 1-D convolution along every axis (``long_conv``)
    transform    one transform over all axes, each padded when its turn comes, whatever the rank

With equal axes of T cells and kernels as long, passes cost 2 d R T^{d-1} transforms of 2 T numbers, the n-d transform
2 (2^d - 1) T^{d-1}: in two dimensions passes win at rank 1 alone, in three up to rank 2. The floor of a call is the
smaller count.

Shapes: B batch, X the one to three axes of the grid, D channels, R terms, W taps of an axis, M of them on the future,
F frequencies.
Arithmetic is float32 (float64 where an input is), whatever the dtype of u; y has the dtype of u.
Source: Nguyen et al., "S4ND: modeling images and videos as multidimensional signals using state spaces", 2022,
arXiv:2210.06583, section 3 (the product kernel); the choice of the form is ours.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core import counting
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.long_conv._lags import wide
from seqloom.kernels.long_conv_nd import _grid


@kernel
def long_conv_nd(
    u_BXD: Tensor,
    ahead: Sequence[int],
    first_RDW: Tensor,
    second_RDW: Tensor | None = None,
    third_RDW: Tensor | None = None,
    skip_D: Tensor | None = None,
) -> Tensor:
    """Convolve along every axis of the grid; ``ahead`` counts each axis' taps on the future, which come first."""
    taps = _grid.given(first_RDW, second_RDW, third_RDW)
    _grid.check(u_BXD, ahead, taps, skip_D)
    dtype, axes = wide(u_BXD, *taps), _grid.axes_of(u_BXD.shape[1:-1], ahead, [k.shape[2] for k in taps])
    taps, wide_BXD = _grid.trim(taps, axes, dtype), u_BXD.to(dtype)
    if not u_BXD.numel() or not all(k.numel() for k in taps):
        y_BXD = wide_BXD * sum(k.sum() for k in taps) * 0  # nothing meets, yet a function of all of them
    elif prefers_passes(u_BXD.shape, len(first_RDW), axes):
        y_BXD = _grid.by_passes(wide_BXD, taps, axes)
    else:
        y_BXD = _grid.by_transform(wide_BXD, taps, axes)
    if skip_D is not None:
        y_BXD = y_BXD + skip_D.to(dtype) * wide_BXD
    return y_BXD.to(u_BXD.dtype).contiguous()


@kernel
def long_conv_nd_lags(dy_BXD: Tensor, u_BXD: Tensor, ahead: Sequence[int], widths: Sequence[int]) -> Tensor:
    """Return (D, W, ...): sum over batch and grid of dy_x u_{x - l}, what a change of each K_l would change.

    One transform serves every term and axis: the gradient of one axis' kernel is this, contracted with the others.
    """
    _grid.check_lags(dy_BXD, u_BXD, ahead, widths)
    dtype, axes = wide(dy_BXD, u_BXD), _grid.axes_of(u_BXD.shape[1:-1], ahead, widths)
    if not u_BXD.numel() or not all(at.width for at in axes):
        return u_BXD.new_zeros(u_BXD.shape[-1], *widths, dtype=dtype) + 0 * (u_BXD.sum() + dy_BXD.sum()).to(dtype)
    return _grid.untrim(_grid.lag_sums(dy_BXD.to(dtype), u_BXD.to(dtype), axes), axes, widths).contiguous()


def prefers_passes(shape: Sequence[int], rank: int, axes: "Sequence[_grid.Axis]") -> bool:
    """Whether 1-D convolutions axis by axis need fewer multiply-adds than one transform over all axes."""
    return len(axes) == 1 or _grid.passes_macs(shape, rank, axes) <= _grid.transform_macs(shape, rank, axes)


@long_conv_nd.shapes
def shapes(u_BXD, ahead, first_RDW, second_RDW=None, third_RDW=None, skip_D=None):
    return torch.empty_like(u_BXD, memory_format=torch.contiguous_format)


@long_conv_nd_lags.shapes
def lags_shapes(dy_BXD, u_BXD, ahead, widths):
    return u_BXD.new_empty((u_BXD.shape[-1], *widths), dtype=wide(dy_BXD, u_BXD))


@long_conv_nd.vjp(outputs=())
def backward(grads, inputs, outputs):
    """The adjoint of a convolution is one with turned kernels; a zero tap in front keeps lag 0 among them."""
    (dy_BXD,), (u_BXD, ahead, *taps, skip_D) = grads, inputs
    present = _grid.given(*taps)
    widths = [k.shape[2] for k in present]
    turned = [pad(k.flip(2), (1, 0)) for k in present]
    behind = [W - M for W, M in zip(widths, ahead, strict=True)]
    du_BXD = long_conv_nd(dy_BXD, behind, *turned, *[None] * (3 - len(turned)), skip_D)
    g_DW = long_conv_nd_lags(dy_BXD, u_BXD, ahead, widths)
    dtaps = [_contract(g_DW, present, number).to(k.dtype) for number, k in enumerate(present)]
    dskip_D = None
    if skip_D is not None:
        products_BXD = dy_BXD.to(g_DW.dtype) * u_BXD.to(g_DW.dtype)
        dskip_D = products_BXD.flatten(0, -2).sum(0).to(skip_D.dtype)
    return du_BXD.to(u_BXD.dtype), None, *dtaps, *[None] * (3 - len(dtaps)), dskip_D


def _contract(g_DW: Tensor, taps: Sequence[Tensor], number: int) -> Tensor:
    """(R, D, W) of one axis: sum the lag products over the other axes, weighed by their kernels."""
    letters = "xyz"[: len(taps)]
    others = [at for at in range(len(taps)) if at != number]
    terms = ",".join(["d" + letters, *("rd" + letters[at] for at in others)])
    if not others:
        return g_DW[None].expand(len(taps[0]), *g_DW.shape).contiguous()
    return torch.einsum(f"{terms}->rd{letters[number]}", g_DW, *(taps[at].to(g_DW.dtype) for at in others))


@long_conv_nd.cost
def cost(u_BXD, ahead, first_RDW, second_RDW=None, third_RDW=None, skip_D=None) -> Cost:
    taps = _grid.given(first_RDW, second_RDW, third_RDW)
    moved = 2 * u_BXD.nbytes + sum(k.nbytes for k in (*taps, *_grid.given(skip_D)))
    axes = _grid.axes_of(u_BXD.shape[1:-1], ahead, [k.shape[2] for k in taps])
    if not u_BXD.numel() or not all(at.width for at in axes):
        return Cost(macs=0, bytes=moved)
    form = _grid.passes_macs if prefers_passes(u_BXD.shape, len(first_RDW), axes) else _grid.transform_macs
    return Cost(macs=form(u_BXD.shape, len(first_RDW), axes), bytes=moved)


@long_conv_nd_lags.cost
def lags_cost(dy_BXD, u_BXD, ahead, widths) -> Cost:
    axes, (B, D) = _grid.axes_of(u_BXD.shape[1:-1], ahead, widths), (len(u_BXD), u_BXD.shape[-1])
    moved = dy_BXD.nbytes + u_BXD.nbytes
    if not u_BXD.numel() or not all(at.width for at in axes):
        return Cost(macs=0, bytes=moved)
    return Cost(macs=D * ((2 * B + 1) * _grid.grid_macs(axes) + 4 * B * _grid.spectrum_points(axes)), bytes=moved)


_SIZES = (
    (1, (1,), 1, 1, ((1, 0),), False),
    (2, (4, 5), 2, 3, ((7, 3), (9, 4)), True),
    (2, (0, 4), 2, 2, ((3, 1), (3, 1)), False),
    (0, (5,), 2, 1, ((5, 2),), True),
    (2, (1, 7), 2, 3, ((1, 0), (13, 6)), False),
    (1, (5, 1, 6), 2, 3, ((9, 4), (3, 1), (11, 5)), True),
    (2, (7, 11), 3, 3, ((13, 6), (21, 10)), False),
    (2, (13, 9), 3, 1, ((25, 12), (9, 0)), True),
    (1, (5, 6, 7), 3, 4, ((9, 4), (11, 5), (13, 6)), False),
    (2, (12, 16), 19, 4, ((31, 15), (16, 16)), True),
)
"""Batch, grid, channels, terms, (taps, of them on the future) an axis, skip: size 1 and 0, odd, prime, one-sided."""


@long_conv_nd.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Smallest first: one to three axes, prime and unequal sizes, taps beyond the grid, both forms."""
    for B, grid, D, R, sides, skips in _SIZES:
        u_BXD = torch.randn(B, *grid, D, generator=rng, dtype=dtype)
        taps = [torch.randn(R, D, W, generator=rng, dtype=dtype) for W, _ in sides]
        skip_D = torch.randn(D, generator=rng, dtype=dtype) if skips else None
        yield u_BXD, tuple(M for _, M in sides), *taps, *[None] * (3 - len(taps)), skip_D


@long_conv_nd_lags.cases
def lags_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """The adjoint's inputs on the same grids."""
    for B, grid, D, _, sides, _ in _SIZES:
        dy_BXD, u_BXD = (torch.randn(B, *grid, D, generator=rng, dtype=dtype) for _ in range(2))
        yield dy_BXD, u_BXD, tuple(M for _, M in sides), tuple(W for W, _ in sides)


@counting.addend("seqloom::long_conv_nd")
def _macs(args: tuple[Any, ...], out: Tensor) -> int:
    return long_conv_nd.floor(*args).macs


@counting.addend("seqloom::long_conv_nd_lags")
def _lags_macs(args: tuple[Any, ...], out: Tensor) -> int:
    return long_conv_nd_lags.floor(*args).macs
