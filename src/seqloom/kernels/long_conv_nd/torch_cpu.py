"""The n-d transforms tile by tile: some rows and some channels at a time, so that scratch memory is bounded.

The backward pass keeps the inputs alone: a spectrum has 2^d times the numbers of its input.
Shapes: as in the kernel's ``__init__``; b rows and c channels of a tile.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from seqloom.kernels.long_conv._lags import wide
from seqloom.kernels.long_conv._tiles import TILE
from seqloom.kernels.long_conv_nd import _grid, prefers_passes


def forward(
    u_BXD: Tensor,
    ahead: Sequence[int],
    first_RDW: Tensor,
    second_RDW: Tensor | None = None,
    third_RDW: Tensor | None = None,
    skip_D: Tensor | None = None,
) -> Tensor:
    taps = _grid.given(first_RDW, second_RDW, third_RDW)
    dtype, axes = wide(u_BXD, *taps), _grid.axes_of(u_BXD.shape[1:-1], ahead, [k.shape[2] for k in taps])
    taps = _grid.trim(taps, axes, dtype)
    y_BXD = torch.empty_like(u_BXD, memory_format=torch.contiguous_format)
    for here_D, rows in _tiles(u_BXD, axes):
        kernel_cF = _grid.kernel_spectrum([k[:, here_D] for k in taps], axes)
        skip_c = None if skip_D is None else skip_D[here_D].to(dtype)
        for here_B in rows:
            u_bXc = u_BXD[here_B, ..., here_D].to(dtype)
            tile_bcF = _grid.spectrum(u_bXc, axes)
            tile_bcF *= kernel_cF
            y_bXc = _grid.from_spectrum(tile_bcF, axes)
            y_BXD[here_B, ..., here_D] = y_bXc if skip_c is None else y_bXc + skip_c * u_bXc
    return y_BXD


def lags(dy_BXD: Tensor, u_BXD: Tensor, ahead: Sequence[int], widths: Sequence[int]) -> Tensor:
    dtype, axes = wide(dy_BXD, u_BXD), _grid.axes_of(u_BXD.shape[1:-1], ahead, widths)
    g_DW = u_BXD.new_zeros((u_BXD.shape[-1], *widths), dtype=dtype)
    inside = tuple(slice(at.cut, at.cut + at.width) for at in axes)
    for here_D, rows in _tiles(u_BXD, axes):
        total_cF: Any = 0
        for here_B in rows:
            dy_bcF = _grid.spectrum(dy_BXD[here_B, ..., here_D].to(dtype), axes)
            u_bcF = _grid.spectrum(u_BXD[here_B, ..., here_D].to(dtype), axes)
            total_cF = total_cF + (dy_bcF * u_bcF.conj_physical()).sum(0)
        g_DW[here_D, *inside] = _grid.from_ring(total_cF, axes)
    return g_DW


FORWARDS = {"long_conv_nd": forward, "long_conv_nd_lags": lags}


def refuses(*inputs: Any) -> str | None:
    """Passes along the axes are calls of ``long_conv``, which has tiles of its own."""
    if isinstance(inputs[1], Tensor):
        dy_BXD, u_BXD, ahead, widths = inputs
        _grid.check_lags(dy_BXD, u_BXD, ahead, widths)
        axes = _grid.axes_of(u_BXD.shape[1:-1], ahead, widths)
        passes = False
    else:
        u_BXD, ahead, *taps, _ = inputs
        present = _grid.given(*taps)
        _grid.check(u_BXD, ahead, present, inputs[-1])
        axes = _grid.axes_of(u_BXD.shape[1:-1], ahead, [k.shape[2] for k in present])
        passes = u_BXD.numel() > 0 and prefers_passes(u_BXD.shape, len(present[0]), axes)
    if not u_BXD.numel() or not all(at.width for at in axes):
        return "nothing meets: there is no transform to take"
    return "convolutions along one axis after the other need fewer operations" if passes else None


def _tiles(u_BXD: Tensor, axes: "Sequence[_grid.Axis]") -> Iterator[tuple[slice, list[slice]]]:
    """Channels of a tile, and its spans of rows."""
    B, D = len(u_BXD), u_BXD.shape[-1]
    held = TILE * torch.get_num_threads() // prod(at.length for at in axes)
    channels = min(D, max(held, 1))
    rows = max(held // channels, 1)
    for start in range(0, D, channels):
        spans = [slice(at, min(at + rows, B)) for at in range(0, B, rows)]
        yield slice(start, min(start + channels, D)), spans
