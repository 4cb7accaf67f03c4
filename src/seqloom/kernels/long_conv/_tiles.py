"""The transforms tile by tile: some rows and some channels at a time, so that a tile stays in the cache.

    for channels: K = rfft(ring);  for rows: y = irfft(rfft(u) K);  backward: R += sum_rows conj(rfft(u)) rfft(dy)

A whole (B, D, n) batch of transforms reads and writes memory five times; a tile does it once each way, turns (time,
channel) into (channel, time) on the way, and bounds the scratch memory. Gates (of the inputs, of the outputs; see
``kernels/gated_long_conv``) are multiplied while a tile is there, so that no product is written to memory.
Shapes: as in the kernel's ``__init__``; b rows and c channels of a tile.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.kernels.long_conv._lags import Inputs, check, fft_length, is_direct, ring, trim, unring, wide

TILE = 1 << 18
"""Numbers of one tile for each thread: with its spectrum about 2 MiB of float32, the second-level cache of a core."""
CHANNELS = 16
"""Fewest channels of a tile: 64 bytes, one line of cache, are read from every time step."""


Gates = tuple[Tensor | None, Tensor | None]
"""Factors of the inputs and of the outputs (B, T, D); without earlier inputs alone."""


def forward(inputs: Inputs, tile: int, gates: Gates = (None, None)) -> Tensor:
    """``long_conv`` in tiles of about this many numbers."""
    (u_BTD, k_DL, back_DM, skip_D, before_BSD), (pre_BTD, post_BTD) = inputs, gates
    B, T, D = u_BTD.shape
    dtype = wide(u_BTD, k_DL)
    k_DL, back_DM, before_BSD = trim(T, k_DL, back_DM, before_BSD)
    S = 0 if before_BSD is None else before_BSD.shape[1]
    n = fft_length(T, S, k_DL, back_DM)
    y_BTD = torch.empty_like(u_BTD, memory_format=torch.contiguous_format)
    channels, rows = _tiling(B, D, n, tile)
    scratch_bcn = u_BTD.new_zeros(rows, channels, n, dtype=dtype)
    for here_D in _spans(D, channels):
        kernel_cF = torch.fft.rfft(ring(k_DL[here_D], _at(back_DM, here_D), _at(skip_D, here_D), n, dtype))
        for here_B in _spans(B, rows):
            _load(scratch_bcn, u_BTD, before_BSD, here_B, here_D, pre_BTD)
            tile_bcF = torch.fft.rfft(_part(scratch_bcn, here_B, here_D))
            tile_bcF *= kernel_cF
            y_bTc = torch.fft.irfft(tile_bcF, n)[..., S : S + T].transpose(1, 2)
            y_BTD[here_B, :, here_D] = _times(y_bTc, _tile(post_BTD, here_B, here_D), dtype)
    return y_BTD


def backward(
    dy_BTD: Tensor, inputs: Inputs, tile: int, gates: Gates = (None, None), dgates: Gates = (None, None)
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``long_conv_backward`` in tiles of about this many numbers; gradients of gates are written to ``dgates``."""
    (u_BTD, k_DL, back_DM, skip_D, before_BSD), (pre_BTD, post_BTD), (dpre_BTD, dpost_BTD) = inputs, gates, dgates
    B, T, D = u_BTD.shape
    dtype = wide(u_BTD, k_DL)
    taps_DL, ahead_DM, past_BSD = trim(T, k_DL, back_DM, before_BSD)
    S = 0 if past_BSD is None else past_BSD.shape[1]
    n = fft_length(T, S, taps_DL, ahead_DM)
    dinput_BED = u_BTD.new_empty(B, S + T, D, dtype=dtype)
    dring_Dn = u_BTD.new_empty(D, n, dtype=dtype)
    channels, rows = _tiling(B, D, n, tile)
    input_bcn = u_BTD.new_zeros(rows, channels, n, dtype=dtype)
    dy_bcn = torch.zeros_like(input_bcn)
    for here_D in _spans(D, channels):
        kernel_cF = torch.fft.rfft(ring(taps_DL[here_D], _at(ahead_DM, here_D), _at(skip_D, here_D), n, dtype))
        turned_cF = kernel_cF.conj_physical()  # within an op a lazy conjugate would be lost
        dring_cF = torch.zeros_like(kernel_cF)
        for here_B in _spans(B, rows):
            _load(input_bcn, u_BTD, past_BSD, here_B, here_D, pre_BTD)
            dy_bTc = _times(dy_BTD[here_B, :, here_D], _tile(post_BTD, here_B, here_D), dtype)
            _part(dy_bcn, here_B, here_D)[..., S : S + T] = dy_bTc.transpose(1, 2)
            input_bcF = torch.fft.rfft(_part(input_bcn, here_B, here_D))
            if dpost_BTD is not None:  # the outputs before the gate, once more: cheaper than to keep them
                y_bTc = torch.fft.irfft(input_bcF * kernel_cF, n)[..., :T].transpose(1, 2)
                dpost_BTD[here_B, :, here_D] = _times(y_bTc, dy_BTD[here_B, :, here_D], dtype)
            input_bcF.conj_physical_()
            dy_bcF = torch.fft.rfft(_part(dy_bcn, here_B, here_D))
            for one_cF, other_cF in zip(dy_bcF, input_bcF, strict=True):
                dring_cF.addcmul_(one_cF, other_cF)
            dy_bcF *= turned_cF
            dinput_bEc = dinput_BED[here_B, :, here_D]
            dinput_bEc.copy_(torch.fft.irfft(dy_bcF, n)[..., : S + T].transpose(1, 2))
            if pre_BTD is not None and dpre_BTD is not None:
                dpre_BTD[here_B, :, here_D] = _times(dinput_bEc, u_BTD[here_B, :, here_D], dtype)
                dinput_bEc *= pre_BTD[here_B, :, here_D]
        dring_Dn[here_D] = torch.fft.irfft(dring_cF, n)
    return unring(dring_Dn, dinput_BED, inputs, S)


def refuses(inputs: Inputs) -> str | None:
    """The direct form stays in the reference: a transform would cost more."""
    check(*inputs)
    u_BTD, k_DL, back_DM, _, before_BSD = inputs
    taps_DL, ahead_DM, _ = trim(u_BTD.shape[1], k_DL, back_DM, before_BSD)
    if is_direct(u_BTD.shape[1], taps_DL, ahead_DM):
        return "few taps or few outputs: the direct form is quicker"
    return None


def _tiling(B: int, D: int, n: int, tile: int) -> tuple[int, int]:
    """Channels and rows of one tile: all rows if they fit beside the fewest channels, then more channels."""
    rows = max(min(B, tile // (min(CHANNELS, D) * n)), 1)
    return max(min(D, tile // (rows * n)), min(CHANNELS, D)), rows


def _spans(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _at(x_DM: Tensor | None, here_D: slice) -> Tensor | None:
    return None if x_DM is None else x_DM[here_D]


def _part(scratch_bcn: Tensor, here_B: slice, here_D: slice) -> Tensor:
    return scratch_bcn[: here_B.stop - here_B.start, : here_D.stop - here_D.start]


def _load(
    scratch_bcn: Tensor, u_BTD: Tensor, before_BSD: Tensor | None, here_B: slice, here_D: slice, pre_BTD: Tensor | None
) -> None:
    """Earlier inputs and inputs, turned; the zeros behind them were written once and stay."""
    part_bcn = _part(scratch_bcn, here_B, here_D)
    S, T = 0 if before_BSD is None else before_BSD.shape[1], u_BTD.shape[1]
    if before_BSD is not None:
        part_bcn[..., :S] = before_BSD[here_B, :, here_D].transpose(1, 2)
    u_bTc = _times(u_BTD[here_B, :, here_D], _tile(pre_BTD, here_B, here_D), scratch_bcn.dtype)
    part_bcn[..., S : S + T] = u_bTc.transpose(1, 2)


def _tile(x_BTD: Tensor | None, here_B: slice, here_D: slice) -> Tensor | None:
    return None if x_BTD is None else x_BTD[here_B, :, here_D]


def _times(x_bTc: Tensor, gate_bTc: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A tile gated in the order (time, channel): products of equal strides are several times as fast."""
    return x_bTc if gate_bTc is None else x_bTc.to(dtype).contiguous() * gate_bTc.to(dtype)
