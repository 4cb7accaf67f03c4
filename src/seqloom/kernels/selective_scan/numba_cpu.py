import math
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import run
from seqloom.kernels.selective_scan import CHUNK, common, starts, state_dtype

LANES = 64  # channels of one piece of work; its states, 64 x 16 numbers, stay in the first-level cache
LOG2_E, LN_2 = 1.4426950408889634, 0.6931471805599453
FIVE = tuple(np.float32(c) for c in (1.3264727e-3, 9.671513e-3, 5.5507336e-2, 0.24022242, 0.693147))


def refuses(*inputs: Any) -> str | None:
    """Serves the scan (x, dt, a, b, c, h, segments) and its adjoint (dy, dlast, dstates, x, ..., states, segments)."""
    *tensors, segments_BT = inputs
    x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN = tensors[3:9] if len(tensors) > 6 else tensors
    (B, T, E), N = x_BTE.shape, a_EN.shape[1]
    wanted = ((dt_BTE, (B, T, E)), (a_EN, (E, N)), (b_BTN, (B, T, N)), (c_BTN, (B, T, N)), (h_BEN, (B, E, N)))
    if any(tuple(value.shape) != shape for value, shape in wanted):
        return f"the inputs' shapes do not fit (B, T, E) = {(B, T, E)} and N = {N}"
    if not all(value.is_floating_point() for value in tensors):
        return "an input is not real"
    if segments_BT is not None and tuple(segments_BT.shape) != (B, T):
        return "the segments are of another shape"
    return "fewer than two steps: a call would cost more than the work" if T < 2 else None


def forward(
    x_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    h_BEN: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    given = (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN)
    wide, kind = common(*given), state_dtype(h_BEN)
    arrays = [_array(value, wide) for value in given]
    (B, T, E), N = x_BTE.shape, a_EN.shape[1]
    like = x_BTE.new_empty(0, dtype=wide)
    y_BTE, last_BEN, states_BCEN = (fresh(size, like) for size in ((B, T, E), (B, E, N), (B, (T - 1) // CHUNK, E, N)))
    outputs = (y_BTE.numpy(), last_BEN.numpy(), states_BCEN.numpy())
    run(_scan, _scan_parallel, B * T * E * N, *arrays, _starts(segments_BT), *outputs)
    return y_BTE.to(x_BTE.dtype), last_BEN.to(kind), states_BCEN.to(kind)


def backward(
    dy_BTE: Tensor,
    dlast_BEN: Tensor,
    dstates_BCEN: Tensor,
    x_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    h_BEN: Tensor,
    states_BCEN: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN)
    wide = common(*given)
    arrays = [_array(value, wide) for value in (dy_BTE, dlast_BEN, dstates_BCEN, *given, states_BCEN)]
    (B, T, E), N = x_BTE.shape, a_EN.shape[1]
    like, blocks = x_BTE.new_empty(0, dtype=wide), -(-E // LANES)
    sizes = ((B, T, E), (B, T, E), (B, E, N), (blocks, B, T, N), (blocks, B, T, N), (B, E, N))
    dx, ddt, da, db, dc, dh = (fresh(size, like) for size in sizes)
    outputs = (value.numpy() for value in (dx, ddt, da, db, dc, dh))
    run(_adjoint, _adjoint_parallel, B * T * E * N, *arrays, _starts(segments_BT), *outputs)
    grads = (dx, ddt, da.sum(0), db.sum(0), dc.sum(0), dh)
    return tuple(value.to(other.dtype) for value, other in zip(grads, given, strict=True))  # type: ignore[bad-return]


FORWARDS = {"selective_scan": forward, "selective_scan_backward": backward}


def _array(value: Tensor, dtype: torch.dtype) -> np.ndarray:
    return value.detach().to(dtype).contiguous().numpy()


def _starts(segments_BT: Tensor | None) -> np.ndarray:
    start_TB = starts(segments_BT)
    return np.zeros((0, 0), np.bool_) if start_TB is None else start_TB.contiguous().numpy()


def exp2(z: float) -> float:
    """2 to the z inside compiled loops, for float32 in a form that the compiler makes vectors of; z <= 0."""
    return 2.0**z


@overload(exp2, jit_options={"error_model": "numpy", "fastmath": {"contract"}})
def _exp2(z):
    return _exp2_float32 if z == numba.types.float32 else _exp2_float64


def _exp2_float64(z):
    return math.exp(z * LN_2)


def _exp2_float32(z):
    z = np.float32(-125.0) if z < np.float32(-125.0) else z  # NaN stays
    z = np.float32(127.0) if z > np.float32(127.0) else z
    shifted = z + np.float32(12582912.0)  # 1.5 * 2^23: the sum's last bits are z, rounded
    f = z - (shifted - np.float32(12582912.0))
    total = FIVE[0] * f + FIVE[1]
    total = total * f + FIVE[2]
    total = total * f + FIVE[3]
    total = total * f + FIVE[4]
    total = total * f + np.float32(1)
    bits = np.float32(total).view(np.int32) + np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    return np.int32(bits).view(np.float32)


@numba.njit
def _turn(value, low, lanes):
    """A block of (E, N) as (N, LANES)."""
    for e in range(min(LANES, value.shape[0] - low)):
        for n in range(lanes.shape[0]):
            lanes[n, e] = value[low + e, n]


@numba.njit
def _turn_back(lanes, low, value):
    for e in range(min(LANES, value.shape[0] - low)):
        for n in range(lanes.shape[0]):
            value[low + e, n] = lanes[n, e]


def _scan_body(x, dt, a, b, c, h, start, y, last, states):
    B, T, E = x.shape
    N, blocks = a.shape[1], (E + LANES - 1) // LANES
    for piece in numba.prange(B * blocks):
        row, low = piece // blocks, piece % blocks * LANES
        width = min(LANES, E - low)
        rate, state = np.zeros((N, LANES), x.dtype), np.zeros((N, LANES), x.dtype)
        _turn(a, low, rate)
        rate *= x.dtype.type(LOG2_E)
        _turn(h[row], low, state)
        step, into, out = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
        for t in range(T):
            if start.size and start[t, row]:
                state[:] = 0
            for e in range(width):
                step[e] = dt[row, t, low + e]
                into[e] = dt[row, t, low + e] * x[row, t, low + e]
            out[:] = 0
            for n in range(N):
                b_n, c_n, rate_n, state_n = b[row, t, n], c[row, t, n], rate[n], state[n]
                for e in range(LANES):
                    value = exp2(step[e] * rate_n[e]) * state_n[e] + into[e] * b_n
                    state_n[e] = value
                    out[e] += c_n * value
            for e in range(width):
                y[row, t, low + e] = out[e]
            if t % CHUNK == CHUNK - 1 and t + 1 < T:
                _turn_back(state, low, states[row, t // CHUNK])
        _turn_back(state, low, last[row])


@numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")
def _dot(left, right):
    total = left.dtype.type(0)
    for e in range(LANES):
        total += left[e] * right[e]
    return total


@numba.njit(fastmath={"contract"}, error_model="numpy")
def _again(row, low, begin, end, x, dt, dy, b, start, rate, state, decays, pasts, dc):
    """The steps of a chunk once more: decays, the state before times the decay, and the gradient of c."""
    N, width = rate.shape[0], min(LANES, x.shape[2] - low)
    step, into, drow = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    for t in range(begin, end):
        forgets = start.size > 0 and start[t, row]
        if forgets:
            state[:] = 0
        for e in range(width):
            step[e] = dt[row, t, low + e]
            into[e] = dt[row, t, low + e] * x[row, t, low + e]
            drow[e] = dy[row, t, low + e]
        for n in range(N):
            b_n, rate_n, state_n, decay, past = (
                b[row, t, n],
                rate[n],
                state[n],
                decays[t - begin, n],
                pasts[t - begin, n],
            )
            for e in range(LANES):
                decay[e] = exp2(step[e] * rate_n[e])
            for e in range(LANES):
                value = decay[e] * state_n[e]
                past[e] = value
                state_n[e] = value + into[e] * b_n
            dc[row, t, n] = _dot(drow, state_n)
        if forgets:
            decays[t - begin] = 0  # no gradient passes either


@numba.njit(fastmath={"contract"}, error_model="numpy")
def _back(row, low, begin, end, x, dt, dy, b, c, rate, carry, decays, pasts, share, db, dx, ddt):
    """Gradients of a chunk from its last step to its first; ``carry`` is that of the state after it."""
    N, width, scale = rate.shape[0], min(LANES, x.shape[2] - low), x.dtype.type(LN_2)
    step, into, drow = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    g, w = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    slope, drive = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    for t in range(end - 1, begin - 1, -1):
        for e in range(width):
            step[e] = dt[row, t, low + e]
            into[e] = dt[row, t, low + e] * x[row, t, low + e]
            drow[e] = dy[row, t, low + e]
        slope[:] = 0
        drive[:] = 0
        for n in range(N):
            b_n, c_n, rate_n, carry_n, share_n = b[row, t, n], c[row, t, n], rate[n], carry[n], share[n]
            decay, past = decays[t - begin, n], pasts[t - begin, n]
            for e in range(LANES):
                value = carry_n[e] + c_n * drow[e]
                g[e] = value
                carry_n[e] = value * decay[e]
            for e in range(LANES):
                value = g[e] * past[e]
                w[e] = value
                share_n[e] += value * step[e]
            for e in range(LANES):
                slope[e] += w[e] * rate_n[e]
                drive[e] += g[e] * b_n
            db[row, t, n] = _dot(g, into)
        for e in range(width):
            dx[row, t, low + e] = drive[e] * step[e]
            ddt[row, t, low + e] = slope[e] * scale + drive[e] * x[row, t, low + e]


def _adjoint_body(dy, dlast, dstates, x, dt, a, b, c, h, states, start, dx, ddt, da, db, dc, dh):
    B, T, E = x.shape
    N, blocks, chunks = a.shape[1], (E + LANES - 1) // LANES, (T + CHUNK - 1) // CHUNK
    for piece in numba.prange(B * blocks):
        row, block = piece // blocks, piece % blocks
        low = block * LANES
        rate, state, carry = np.zeros((N, LANES), x.dtype), np.zeros((N, LANES), x.dtype), np.zeros((N, LANES), x.dtype)
        share, total = np.zeros((N, LANES), x.dtype), np.zeros((N, LANES), x.dtype)
        decays, pasts = np.empty((CHUNK, N, LANES), x.dtype), np.empty((CHUNK, N, LANES), x.dtype)
        _turn(a, low, rate)
        rate *= x.dtype.type(LOG2_E)
        _turn(dlast[row], low, carry)
        for chunk in range(chunks - 1, -1, -1):
            begin, end = chunk * CHUNK, min(T, chunk * CHUNK + CHUNK)
            _turn(states[row, chunk - 1] if chunk else h[row], low, state)
            if chunk < chunks - 1:
                _turn(dstates[row, chunk], low, share)
                carry += share
            share[:] = 0
            _again(row, low, begin, end, x, dt, dy, b, start, rate, state, decays, pasts, dc[block])
            _back(row, low, begin, end, x, dt, dy, b, c, rate, carry, decays, pasts, share, db[block], dx, ddt)
            total += share  # a chunk's sum joins the total: no digit is lost over many steps
        _turn_back(total, low, da[row])
        _turn_back(carry, low, dh[row])


_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_adjoint = numba.njit(**_OPTIONS)(_adjoint_body)
_adjoint_parallel = numba.njit(**_OPTIONS, parallel=True)(_adjoint_body)
_scan = numba.njit(**_OPTIONS)(_scan_body)
_scan_parallel = numba.njit(**_OPTIONS, parallel=True)(_scan_body)
