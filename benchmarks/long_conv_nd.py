"""long_conv_nd against the bare transforms: rfftn of what is padded at once, times a ready spectrum, irfftn."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from seqloom.kernels.long_conv_nd import _grid, long_conv_nd
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel

FLOOR = "bare rfftn, multiply, irfftn on (B, D, X)"


@cache
def check() -> None:
    check_kernel(long_conv_nd)


def cases() -> Iterator[Case]:
    for rank in 1, 2, 4:
        yield forward(8, (32, 32), 64, rank)
    yield forward(1, (16, 32, 32), 32, 1)
    yield forward(1, (16, 32, 32), 32, 4)
    yield forward_and_backward(8, (32, 32), 64, 1)
    yield forward_and_backward(8, (32, 32), 64, 4)


def bare(u_BDX: Tensor, spectrum_DF: Tensor, grid: tuple[int, ...]) -> Tensor:
    n, inside = [2 * size for size in grid], tuple(slice(size) for size in grid)
    dims = tuple(range(2, 2 + len(grid)))
    return torch.fft.irfftn(torch.fft.rfftn(u_BDX, n, dims) * spectrum_DF, n, dims)[:, :, *inside]


def made(B: int, grid: tuple[int, ...], D: int, rank: int) -> tuple[Tensor, tuple[int, ...], list[Tensor], Tensor]:
    u_BXD, ahead = torch.randn(B, *grid, D), tuple(size - 1 for size in grid)
    taps = [torch.randn(rank, D, 2 * size - 1) for size in grid]
    axes = _grid.axes_of(grid, ahead, [k.shape[2] for k in taps])
    return u_BXD, ahead, taps, _grid.kernel_spectrum(taps, axes)


@torch.no_grad()
def forward(B: int, grid: tuple[int, ...], D: int, rank: int) -> Case:
    u, ahead, taps, spectrum = made(B, grid, D, rank)
    axes = _grid.axes_of(grid, ahead, [k.shape[2] for k in taps])
    turned = u.movedim(-1, 1).contiguous()
    arms = {
        "long_conv_nd": lambda: long_conv_nd(u, ahead, *taps),
        "axis by axis": lambda: _grid.by_passes(u, taps, axes),
        "one transform, no tiles": lambda: _grid.by_transform(u, taps, axes),
        FLOOR: lambda: bare(turned, spectrum, grid),
    }
    label = "x".join(map(str, grid))
    return Case(f"forward, rank {rank} ({B}, {label}, {D})", arms, FLOOR, check, goal=1.3, rounds=7)


def forward_and_backward(B: int, grid: tuple[int, ...], D: int, rank: int) -> Case:
    u, ahead, taps, spectrum = made(B, grid, D, rank)
    dy, turned = torch.randn_like(u), u.movedim(-1, 1).contiguous().requires_grad_()
    dy_turned, spectrum = dy.movedim(-1, 1).contiguous(), spectrum.requires_grad_()
    leaves = [x.requires_grad_() for x in (u, *taps)]
    arms = {
        "long_conv_nd": lambda: torch.autograd.grad(long_conv_nd(u, ahead, *taps), leaves, dy),
        FLOOR: lambda: torch.autograd.grad(bare(turned, spectrum, grid), (turned, spectrum), dy_turned),
    }
    label = "x".join(map(str, grid))
    return Case(f"forward + backward, rank {rank} ({B}, {label}, {D})", arms, FLOOR, check, goal=1.5, rounds=7)
