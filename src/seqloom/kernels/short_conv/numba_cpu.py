from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import exp, run
from seqloom.kernels.short_conv import ACTIVATIONS, _numbers

CHUNK = 256  # rows of one piece of work


def refuses(*inputs: Any) -> str | None:
    """Serves the convolution (x, ...) and its adjoint (dy, x, ...)."""
    *given, weight_DK, bias_D, before_BKD, segments_BT, lengths_B, activation, ahead = inputs
    (B, T, D), K = given[-1].shape, weight_DK.shape[1]
    if activation not in ACTIVATIONS or not 0 <= ahead < K:
        return "the activation or ahead is wrong"
    if given[-1].dtype not in (torch.float32, torch.float64):
        return f"numpy computes no {given[-1].dtype}"
    wanted = [
        *((value, (B, T, D)) for value in given),
        (weight_DK, (D, K)),
        (bias_D, (D,)),
        (before_BKD, (B, K - 1, D)),
    ]
    for value, shape in wanted:
        if value is not None and (tuple(value.shape) != shape or value.dtype != given[-1].dtype):
            return f"an input is {value.dtype} {tuple(value.shape)} where it serves {given[-1].dtype} {shape}"
    for value, shape in ((segments_BT, (B, T)), (lengths_B, (B,))):
        if value is not None and tuple(value.shape) != shape:
            return "the segments or lengths are of another shape"
    return "fewer than two steps: a call would cost more than the work" if T < 2 else None


def forward(
    x_BTD: Tensor,
    weight_DK: Tensor,
    bias_D: Tensor | None = None,
    before_BKD: Tensor | None = None,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
    activation: str = "none",
    ahead: int = 0,
) -> tuple[Tensor, Tensor]:
    (B, T, D), K = x_BTD.shape, weight_DK.shape[1]
    x, number = _array(x_BTD), _array(_numbers(x_BTD, segments_BT, lengths_B), np.int64, 2)
    weight, bias = _taps(weight_DK, bias_D)
    before = _array(before_BKD, x.dtype, 3)
    y_BTD, after_BKD = fresh(x_BTD.shape, x_BTD), torch.zeros(B, K - 1, D, dtype=x_BTD.dtype)
    run(
        _convolve,
        _convolve_parallel,
        x.size,
        x,
        weight,
        bias,
        before,
        number,
        y_BTD.numpy(),
        activation == "silu",
        ahead,
    )
    end = np.full(B, T) if lengths_B is None else _array(lengths_B).astype(np.int64)
    _last(x, before, number, end, after_BKD.numpy())
    return y_BTD, after_BKD


def backward(
    dy_BTD: Tensor,
    x_BTD: Tensor,
    weight_DK: Tensor,
    bias_D: Tensor | None = None,
    before_BKD: Tensor | None = None,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
    activation: str = "none",
    ahead: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (B, T, D), K = x_BTD.shape, weight_DK.shape[1]
    dy, x, number = _array(dy_BTD), _array(x_BTD), _array(_numbers(x_BTD, segments_BT, lengths_B), np.int64, 2)
    weight, bias = _taps(weight_DK, bias_D)
    before, pieces = _array(before_BKD, x.dtype, 3), B * -(-T // CHUNK)
    dz = fresh(x_BTD.shape, x_BTD).numpy() if activation == "silu" or number.size else dy
    sums = torch.zeros(pieces, K + 1, D, dtype=x_BTD.dtype)
    arrays = (dy, x, weight, bias, before, number, dz, sums.numpy(), activation == "silu", ahead)
    run(_adjoint, _adjoint_parallel, x.size, *arrays)
    dx_BTD, dbefore_BKD = fresh(x_BTD.shape, x_BTD), torch.zeros(B, K - 1, D, dtype=x_BTD.dtype)
    nothing = _array(None, x.dtype, 3)
    turned = np.ascontiguousarray(weight[::-1])
    arrays = (dz, turned, np.zeros_like(bias), nothing, number, dx_BTD.numpy(), False, K - 1 - ahead)
    run(_convolve, _convolve_parallel, x.size, *arrays)
    _reach_before(dz, weight, number, dbefore_BKD.numpy(), ahead)
    total = sums.sum(0)
    return dx_BTD, total[:K].T.contiguous(), total[K].clone(), dbefore_BKD


FORWARDS = {"short_conv": forward, "short_conv_backward": backward}


def _array(value: Tensor | None, dtype: type | np.dtype | None = None, axes: int = 0) -> np.ndarray:
    return np.zeros((0,) * axes, dtype) if value is None else value.detach().contiguous().numpy()


def _taps(weight_DK: Tensor, bias_D: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    weight = _array(weight_DK.T)
    return weight, np.zeros(weight.shape[1], weight.dtype) if bias_D is None else _array(bias_D)


@numba.njit(inline="always")
def _met(before, number, b, s, T, own):
    """Whether a tap at a position of segment ``own`` meets an input at column s."""
    if s < 0:
        return own == 0 and before.size > 0
    return s < T and (number.size == 0 or number[b, s] == own)


@numba.njit(inline="always")
def _row(x, weight, bias, before, number, b, t, ahead, z):
    """Write the convolution at one position into z, two taps at a time where all of them are plain."""
    K, T, D = weight.shape[0], x.shape[1], x.shape[2]
    own = number[b, t] if number.size else 0
    first = t + ahead - (K - 1)
    plain = first >= 0 and first + K <= T
    if plain and number.size:
        for s in range(first, first + K):
            plain = plain and number[b, s] == own
    if plain:
        if K % 2:
            row, tap = x[b, first], weight[0]
            for d in range(D):
                z[d] = bias[d] + tap[d] * row[d]
        else:
            row, tap, row2, tap2 = x[b, first], weight[0], x[b, first + 1], weight[1]
            for d in range(D):
                z[d] = bias[d] + tap[d] * row[d] + tap2[d] * row2[d]
        for k in range(1 if K % 2 else 2, K, 2):
            row, tap, row2, tap2 = x[b, first + k], weight[k], x[b, first + k + 1], weight[k + 1]
            for d in range(D):
                z[d] += tap[d] * row[d] + tap2[d] * row2[d]
    else:
        z[:] = bias
        for k in range(K):
            s = first + k
            if not _met(before, number, b, s, T, own):
                continue
            row, tap = before[b, s + K - 1] if s < 0 else x[b, s], weight[k]
            for d in range(D):
                z[d] += tap[d] * row[d]


def _convolve_body(x, weight, bias, before, number, y, silu, ahead):
    B, T, D = x.shape
    chunks = (T + CHUNK - 1) // CHUNK
    for piece in numba.prange(B * chunks):
        b, begin = piece // chunks, piece % chunks * CHUNK
        z = np.empty(D, x.dtype)
        for t in range(begin, min(T, begin + CHUNK)):
            y_row = y[b, t]
            if number.size and number[b, t] < 0:
                y_row[:] = 0
                continue
            _row(x, weight, bias, before, number, b, t, ahead, z)
            if silu:
                for d in range(D):
                    y_row[d] = z[d] / (x.dtype.type(1) + exp(-z[d]))
            else:
                for d in range(D):
                    y_row[d] = z[d]


def _adjoint_body(dy, x, weight, bias, before, number, dz, sums, silu, ahead):
    B, T, D = x.shape
    K, chunks = weight.shape[0], (T + CHUNK - 1) // CHUNK
    for piece in numba.prange(B * chunks):
        b, begin = piece // chunks, piece % chunks * CHUNK
        z, one = np.empty(D, x.dtype), x.dtype.type(1)
        for t in range(begin, min(T, begin + CHUNK)):
            own = number[b, t] if number.size else 0
            dy_row, dz_row = dy[b, t], dz[b, t]
            if own < 0:
                dz_row[:] = 0
                continue
            if silu:
                _row(x, weight, bias, before, number, b, t, ahead, z)
                for d in range(D):
                    gate = one / (one + exp(-z[d]))
                    dz_row[d] = dy_row[d] * gate * (one + z[d] * (one - gate))
            elif number.size:
                dz_row[:] = dy_row
            for k in range(K):
                s = t + ahead - (K - 1) + k
                if not _met(before, number, b, s, T, own):
                    continue
                row, total = before[b, s + K - 1] if s < 0 else x[b, s], sums[piece, k]
                for d in range(D):
                    total[d] += dz_row[d] * row[d]
            total = sums[piece, K]
            for d in range(D):
                total[d] += dz_row[d]


@numba.njit(cache=True, nogil=True)
def _reach_before(dz, weight, number, dbefore, ahead):
    (B, T, _), K = dz.shape, weight.shape[0]
    for b in range(B):
        for i in range(K - 1):
            for k in range(K):
                t = i - ahead - k
                if 0 <= t < T and (not number.size or number[b, t] == 0):
                    dbefore[b, i] += weight[k] * dz[b, t]


@numba.njit(cache=True, nogil=True)
def _last(x, before, number, end, after):
    B, reach = x.shape[0], after.shape[1]
    for b in range(B):
        last = number[b, end[b] - 1] if number.size and end[b] else 0
        for i in range(reach):
            s = end[b] - reach + i
            if s < 0 and before.size and last == 0:
                after[b, i] = before[b, s + reach]
            elif s >= 0 and (not number.size or number[b, s] == last):
                after[b, i] = x[b, s]


_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}  # a check for division by 0 prevents vectors
_convolve = numba.njit(**_OPTIONS)(_convolve_body)
_convolve_parallel = numba.njit(**_OPTIONS, parallel=True)(_convolve_body)
_adjoint = numba.njit(**_OPTIONS)(_adjoint_body)
_adjoint_parallel = numba.njit(**_OPTIONS, parallel=True)(_adjoint_body)
