"""What the forms of the convolution on a grid share: which lags meet, transforms axis by axis, operation counts.

Shapes: as in the kernel's ``__init__``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv._lags import DIRECT_OUTPUTS, DIRECT_TAPS, fast_length, fft_macs


@dataclass(frozen=True)
class Axis:
    """One axis of the grid: its size and the lags -ahead .. ahead' that its taps stand at."""

    size: int
    width: int
    """Taps that can meet an input."""
    ahead: int
    """How many of them lie on the future: tap w acts at lag w - ahead."""
    cut: int
    """Taps left out before them."""

    @property
    def length(self) -> int:
        """The quick transform length at which no wrapped term falls on one of the outputs."""
        return fast_length(max(self.size + max(self.width - self.ahead - 1, self.ahead), 1))


def check(u_BXD: Tensor, ahead: Sequence[int], taps: Sequence[Tensor], skip_D: Tensor | None) -> None:
    """Raise where the shapes do not fit each other: broadcasting would hide it."""
    axes = u_BXD.ndim - 2
    if not 1 <= axes <= 3:
        raise ConfigError(f"long_conv_nd expects u (batch, 1 to 3 axes, channels), not {tuple(u_BXD.shape)}")
    if len(taps) != axes or len(ahead) != axes:
        raise ConfigError(f"a grid of {axes} axes needs as many kernels and as many values of ahead")
    D = u_BXD.shape[-1]
    if len({len(k) for k in taps}) != 1:
        raise ConfigError(f"long_conv_nd expects one rank for all axes, not {[len(k) for k in taps]} terms")
    for axis, (k, M) in enumerate(zip(taps, ahead, strict=True)):
        if k.ndim != 3 or k.shape[1] != D:
            raise ConfigError(f"long_conv_nd expects kernels (rank, {D}, taps), not {tuple(k.shape)} on axis {axis}")
        if not 0 <= M <= k.shape[2]:
            raise ConfigError(f"ahead counts taps of the axis, 0 to {k.shape[2]}, not {M} on axis {axis}")
    if skip_D is not None and skip_D.shape != (D,):
        raise ConfigError(f"long_conv_nd expects skip_D ({D},), not {tuple(skip_D.shape)}")


def check_lags(dy_BXD: Tensor, u_BXD: Tensor, ahead: Sequence[int], widths: Sequence[int]) -> None:
    """Raise where a gradient, inputs and axes do not fit each other."""
    if u_BXD.shape != dy_BXD.shape or not 1 <= u_BXD.ndim - 2 == len(ahead) == len(widths) <= 3:
        raise ConfigError(
            f"long_conv_nd_lags expects dy like u, and an ahead and a width for each of 1 to 3 axes, not "
            f"{tuple(dy_BXD.shape)}, {tuple(u_BXD.shape)}, {list(ahead)} and {list(widths)}"
        )


def given(*taps: Tensor | None) -> list[Tensor]:
    """The kernels of the axes that there are."""
    return [k for k in taps if k is not None]


def axes_of(sizes: Sequence[int], ahead: Sequence[int], widths: Sequence[int]) -> list[Axis]:
    """Leave out taps that cannot meet an input: lags beyond size - 1 on either side."""
    found = []
    for size, M, W in zip(map(int, sizes), map(int, ahead), map(int, widths), strict=True):
        first = min(max(M - max(size - 1, 0), 0), W)
        last = max(min(W, M + size), first)
        found.append(Axis(size, last - first, M - first, first))
    return found


def trim(taps: Sequence[Tensor], axes: Sequence[Axis], dtype: torch.dtype) -> list[Tensor]:
    """Those taps alone, in the dtype of the arithmetic."""
    return [k[..., at.cut : at.cut + at.width].to(dtype) for k, at in zip(taps, axes, strict=True)]


def by_passes(u_BXD: Tensor, taps: Sequence[Tensor], axes: Sequence[Axis]) -> Tensor:
    """Each term convolves along one axis after the other."""
    total = torch.zeros_like(u_BXD)
    for rank in range(len(taps[0])):
        y_BXD = u_BXD
        for number, (k_RDW, at) in enumerate(zip(taps, axes, strict=True), 1):
            lines = y_BXD.movedim(number, -2)
            k_DW = k_RDW[rank]
            back_DM = k_DW[:, : at.ahead].flip(1) if at.ahead else None
            y_NTD = long_conv(lines.flatten(0, -3), k_DW[:, at.ahead :], back_DM)
            y_BXD = y_NTD.view(lines.shape).movedim(-2, number)
        total = total + y_BXD
    return total


def by_transform(u_BXD: Tensor, taps: Sequence[Tensor], axes: Sequence[Axis]) -> Tensor:
    """Transform every axis, multiply by the sum of the products of the axes' spectra, transform back."""
    return from_spectrum(spectrum(u_BXD, axes) * kernel_spectrum(taps, axes), axes)


def spectrum(u_BXD: Tensor, axes: Sequence[Axis]) -> Tensor:
    """(B, D, F): the last axis first and real; each axis is padded only when its turn comes, so no zeros are moved."""
    s_BDX = torch.fft.rfft(u_BXD.movedim(-1, 1), axes[-1].length)
    for number in range(len(axes) - 1, 0, -1):
        s_BDX = torch.fft.fft(s_BDX, axes[number - 1].length, dim=number + 1)
    return s_BDX


def from_spectrum(s_BDF: Tensor, axes: Sequence[Axis]) -> Tensor:
    """(B, X, D): the outputs alone, each axis cut as soon as it is back."""
    for number, at in enumerate(axes[:-1]):
        s_BDF = torch.fft.ifft(s_BDF, dim=number + 2).narrow(number + 2, 0, at.size)
    y_BDX = torch.fft.irfft(s_BDF, axes[-1].length)[..., : axes[-1].size]
    return y_BDX.movedim(1, -1)


def kernel_spectrum(taps: Sequence[Tensor], axes: Sequence[Axis]) -> Tensor:
    """(D, F): one small transform an axis and term, and their products summed over the terms."""
    parts = [torch.fft.fft(ring(k, at)) for k, at in zip(taps[:-1], axes[:-1], strict=True)]
    parts.append(torch.fft.rfft(ring(taps[-1], axes[-1])))
    total_RDF = parts[0]
    for part_RDF in parts[1:-1]:
        total_RDF = total_RDF[..., None] * part_RDF.view(*part_RDF.shape[:2], *[1] * (total_RDF.ndim - 2), -1)
    if len(parts) == 1:
        return total_RDF.sum(0)
    # The last product and the sum over terms are one contraction, so that R spectra never exist side by side.
    front_RDG, last_RDF = total_RDF.flatten(2), parts[-1]
    whole_DGF = front_RDG.permute(1, 2, 0) @ last_RDF.transpose(0, 1)
    return whole_DGF.unflatten(1, total_RDF.shape[2:])


def ring(k_RDW: Tensor, at: Axis) -> Tensor:
    """The taps on a circle of lags: lag l at l, lag -m at n - m."""
    return pad(k_RDW, (0, at.length - at.width)).roll(-at.ahead, -1)


def lag_sums(dy_BXD: Tensor, u_BXD: Tensor, axes: Sequence[Axis]) -> Tensor:
    """(D, W): sum over the batch and the grid of dy_t u_{t - lag}, for the lags of the trimmed taps."""
    product_DF = (spectrum(dy_BXD, axes) * spectrum(u_BXD, axes).conj()).sum(0)
    return from_ring(product_DF, axes)


def from_ring(s_DF: Tensor, axes: Sequence[Axis]) -> Tensor:
    """A spectrum of lags back to the lags of the trimmed taps."""
    for number, at in enumerate(axes[:-1]):
        s_DF = torch.fft.ifft(s_DF, dim=number + 1).roll(at.ahead, number + 1).narrow(number + 1, 0, at.width)
    return torch.fft.irfft(s_DF, axes[-1].length).roll(axes[-1].ahead, -1)[..., : axes[-1].width]


def untrim(g_DW: Tensor, axes: Sequence[Axis], widths: Sequence[int]) -> Tensor:
    """Zeros at the lags that were left out."""
    sides = [(at.cut, W - at.cut - at.width) for at, W in zip(axes, widths, strict=True)]
    return pad(g_DW, [side for pair in reversed(sides) for side in pair])


def passes_macs(shape: Sequence[int], rank: int, axes: Sequence[Axis]) -> int:
    """Multiply-adds of ``by_passes``: the floor of ``long_conv``, once an axis and term.

    Written out in numbers: every call asks, and shapes may be symbols.
    """
    points, total = prod([int(size) for size in shape]), 0
    for at in axes:
        lines = points // max(at.size, 1)
        if at.width <= DIRECT_TAPS or at.size <= DIRECT_OUTPUTS:
            total += points * at.width
        else:
            total += (2 * lines + int(shape[-1])) * fft_macs(at.length) + 4 * lines * (at.length // 2 + 1)
    return rank * total


def transform_macs(shape: Sequence[int], rank: int, axes: Sequence[Axis]) -> int:
    """Multiply-adds of ``by_transform``: there and back for the input, once for each kernel, and two products."""
    B, D = int(shape[0]), int(shape[-1])
    points, front = spectrum_points(axes), prod([at.length for at in axes[:-1]])
    kernels = sum(fft_macs(at.length) for at in axes) + sum(fft_macs(at.length) for at in axes[:-1])
    outer = 4 * (points + (front if len(axes) == 3 else 0)) if len(axes) > 1 else 0
    return D * (2 * B * grid_macs(axes) + rank * (kernels + outer) + 4 * B * points)


def spectrum_points(axes: Sequence[Axis]) -> int:
    """Frequencies F of one channel."""
    return prod([at.length for at in axes[:-1]]) * (axes[-1].length // 2 + 1)


def grid_macs(axes: Sequence[Axis]) -> int:
    """One way for one channel: a complex transform counts twice a real one."""
    lines = prod([at.size for at in axes[:-1]])
    total = lines * fft_macs(axes[-1].length)
    done = axes[-1].length // 2 + 1
    for number in range(len(axes) - 2, -1, -1):
        before = prod([at.size for at in axes[:number]])
        total += before * done * 2 * fft_macs(axes[number].length)
        done *= axes[number].length
    return total
