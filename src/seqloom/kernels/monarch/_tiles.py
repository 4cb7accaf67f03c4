"""Monarch products by tiles of columns: what lies between the two factors never leaves the cache.

A tile is (N, X): X columns side by side, so that every block is one matrix product on strided views. Where columns
already lie side by side in memory (C is not small) a tile is a view; where they do not (rows of a matrix) the product
reads it transposed, or one small copy turns it.

Shapes: as in the kernel's ``__init__``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seqloom.kernels._memory import fresh
from seqloom.kernels.monarch import check, digits

TILE = 1 << 17  # numbers of one tile and thread: half a MiB in float32
NARROW = 32  # columns; fewer of them side by side are gathered
WORK = 1 << 19  # multiply-adds below which a call costs more than it saves


class Piece(NamedTuple):
    """Rows ``first`` to ``last`` of the batch and a run of columns."""

    first: int
    last: int
    begin: int
    end: int

    @property
    def columns(self) -> int:
        return (self.last - self.first) * (self.end - self.begin)

    def of(self, x_ANC: Tensor) -> Tensor:
        return x_ANC[self.first : self.last, :, self.begin : self.end]


def refuses(x_ANC: Tensor, left_KLI: Tensor, right_IKJ: Tensor) -> str | None:
    dtype = x_ANC.dtype
    if left_KLI.dtype != dtype or right_IKJ.dtype != dtype:
        return "the inputs differ in dtype"
    if not (dtype.is_floating_point or dtype.is_complex):
        return f"it computes no {dtype}"
    if left_KLI.ndim != 3 or right_IKJ.ndim != 3 or x_ANC.ndim != 3:
        return "the inputs do not have three axes each"
    if x_ANC.shape[0] * x_ANC.shape[2] * (right_IKJ.numel() + left_KLI.numel()) < WORK:
        return f"fewer than {WORK} multiply-adds: a call would cost more than the work"
    return None


def forward(
    x_ANC: Tensor, left_KLI: Tensor, right_IKJ: Tensor, reverse_in: bool = False, reverse_out: bool = False
) -> Tensor:
    check(x_ANC, left_KLI, right_IKJ)
    x_ANC, left, right = (value.detach().resolve_conj() for value in (x_ANC, left_KLI, right_IKJ))
    (K, L, I), J, (A, N, C) = left.shape, right.shape[2], x_ANC.shape
    y_AMC = fresh((A, L * K, C), x_ANC)
    tiles = _Scratch(x_ANC)
    for piece in pieces(x_ANC, max(N, L * K, I * K)):
        X = piece.columns
        x_IJX = _read(piece.of(x_ANC), I, J, reverse_in, tiles.take("x", N, X))
        z_IKX = tiles.take("z", I, K, X)
        torch.bmm(right, x_IJX, out=z_IKX)
        y_KLX = tiles.take("y", K, L, X)
        torch.bmm(left, z_IKX.transpose(0, 1), out=y_KLX)
        _write(y_KLX.transpose(0, 1), piece.of(y_AMC), reverse_out, tiles)
    return y_AMC


def backward(
    dy_AMC: Tensor,
    x_ANC: Tensor,
    left_KLI: Tensor,
    right_IKJ: Tensor,
    reverse_in: bool = False,
    reverse_out: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    dy_AMC, x_ANC, left, right = (value.detach().resolve_conj() for value in (dy_AMC, x_ANC, left_KLI, right_IKJ))
    (K, L, I), J, N = left.shape, right.shape[2], x_ANC.shape[1]
    wide = torch.promote_types(x_ANC.dtype, torch.float32)  # sums over all columns, tile by tile
    dx_ANC = fresh(tuple(x_ANC.shape), x_ANC)
    dleft, dright = left.new_zeros(left.shape, dtype=wide), right.new_zeros(right.shape, dtype=wide)
    left_KIL, right_IJK = left.mH.resolve_conj(), right.mH.resolve_conj()
    tiles = _Scratch(x_ANC)
    for piece in pieces(x_ANC, max(N, L * K, I * K)):
        X = piece.columns
        x_IJX = _read(piece.of(x_ANC), I, J, reverse_in, tiles.take("x", N, X))
        dy_KLX = _read(piece.of(dy_AMC), K, L, not reverse_out, tiles.take("dy", L * K, X))
        z_IKX, dz_KIX = tiles.take("z", I, K, X), tiles.take("dz", K, I, X)
        torch.bmm(right, x_IJX, out=z_IKX)
        torch.bmm(left_KIL, dy_KLX, out=dz_KIX)
        _accumulate(dleft, dy_KLX, z_IKX.transpose(0, 1))
        dz_IKX = dz_KIX.transpose(0, 1)
        _accumulate(dright, dz_IKX, x_IJX)
        dx_IJX = tiles.take("dx", I, J, X)
        torch.bmm(right_IJK, dz_IKX, out=dx_IJX)
        _write(dx_IJX, piece.of(dx_ANC), reverse_in, tiles)
    return dx_ANC, dleft.to(left.dtype), dright.to(right.dtype)


def pieces(x_ANC: Tensor, rows: int) -> Iterator[Piece]:
    """Cut the columns: runs within one row of the batch, or where runs are short several rows at once."""
    A, _, C = x_ANC.shape
    most = max(NARROW, TILE * torch.get_num_threads() // max(rows, 1))
    group, width = (1, min(most, C)) if C >= NARROW else (max(most // max(C, 1), 1), C)
    for first in range(0, A, group):
        for begin in range(0, C, max(width, 1)):
            yield Piece(first, min(first + group, A), begin, min(begin + width, C))


class _Scratch:
    """Memory of one tile, taken again for every tile: a first touch costs as much as the product."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.held = like, {}

    def take(self, name: str, *shape: int) -> Tensor:
        size = torch.Size(shape).numel()
        if name not in self.held:  # the first tile is the largest
            self.held[name] = self.like.new_empty(size)
        return self.held[name][:size].view(shape)


def _read(x_ANC: Tensor, high: int, low: int, reverse: bool, room_NX: Tensor) -> Tensor:
    """A tile as (high, low, X) in a form that a matrix product reads without a copy."""
    A, _, C = x_ANC.shape
    if A == 1 and x_ANC.stride(2) == 1:
        x_ANX = x_ANC
    elif C == 1 and x_ANC.stride(1) == 1 and not reverse:
        x_ANX = x_ANC.permute(2, 1, 0)  # rows of a matrix: the product reads them transposed
    else:
        _gather(x_ANC, room_NX)
        x_ANX = room_NX[None]
    return digits(x_ANX, high, low, reverse)[0]


def _gather(x_ANC: Tensor, room_NX: Tensor) -> None:
    A, N, C = x_ANC.shape
    if C == 1:
        room_NX.copy_(x_ANC[..., 0].T)  # a plain transposition has a fast path of its own
    else:
        room_NX.view(N, A, C).copy_(x_ANC.transpose(0, 1))


def _write(y_HWX: Tensor, out_ANC: Tensor, reverse: bool, tiles: _Scratch) -> None:
    """Put a tile (high, low, X) into its columns of the output."""
    A, N, C = out_ANC.shape
    y_HWX = y_HWX.transpose(0, 1) if reverse else y_HWX
    if A == 1 and C > 1:
        out_ANC[0].view(*y_HWX.shape[:2], C).copy_(y_HWX)
        return
    if not y_HWX.is_contiguous():
        y_HWX = tiles.take("turned", *y_HWX.shape).copy_(y_HWX)
    y_NX = y_HWX.view(N, A * C)
    if C == 1:
        out_ANC[..., 0].copy_(y_NX.T)
    else:
        out_ANC.copy_(y_NX.view(N, A, C).transpose(0, 1))


def _accumulate(total_GMN: Tensor, left_GMX: Tensor, right_GNX: Tensor) -> None:
    """Total += left right^H, block by block."""
    if total_GMN.dtype == left_GMX.dtype:
        total_GMN.baddbmm_(left_GMX, right_GNX.mH)
    else:
        total_GMN += torch.bmm(left_GMX, right_GNX.mH)
