"""Four rows of one head at a time: their recurrent weights are read once a step, in panels that the cache holds.

A tile is 16 units of a head with their four gates, 64 numbers a row; a panel is the weights that lead to a tile. What
lies in memory behind one slice at constant distances needs no test for overlap, so that the compiler makes vectors.
"""

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import flat, run
from seqloom.kernels.gated_loop._cells_cpu import UNITS, advance, inner, retreat

ROWS, SLOTS, KEPT = 4, 4, 3
WIDE = UNITS * SLOTS
STATE = UNITS * KEPT
CODES = {"lstm": 0, "gru": 1, "slstm": 2, "slstm_exp": 3}


def refuses(*inputs: Tensor | str | None) -> str | None:
    """Serves the loop (pre, weight, state, ...) and its adjoint (dstates, slots, weight, states, state, ...)."""
    floats = [value for value in inputs if isinstance(value, Tensor) and value.is_floating_point()]
    gates = floats[0] if floats[0].shape[2] == floats[1].shape[0] and floats[1].ndim == 4 else floats[1]
    if inputs[-1] not in CODES:
        return f"no cell is called {inputs[-1]!r}"
    if gates.dtype not in (torch.float32, torch.float64) or any(value.dtype != gates.dtype for value in floats):
        return "the inputs are not all float32 or all float64"
    if not gates.numel() or gates.shape[1] < 2:
        return "fewer than two steps: a call would cost more than the work"
    return None


def forward(
    pre_BTGHK: Tensor,
    weight_GHJK: Tensor,
    state_SBHK: Tensor,
    bias_GHK: Tensor | None = None,
    moves_BT: Tensor | None = None,
    cell: str = "lstm",
) -> Tensor:
    (B, T, G, H, K), states = pre_BTGHK.shape, len(state_SBHK)
    past = -K % UNITS
    bias_GHK = pre_BTGHK.new_zeros(G, H, K) if bias_GHK is None else bias_GHK
    bias_GHK = pad(bias_GHK, (0, past, 0, 0, 0, SLOTS - G))
    weight_GHJK = pad(weight_GHJK, (0, past, 0, past, 0, 0, 0, SLOTS - G))
    panels = weight_GHJK.view(SLOTS, H, -1, UNITS, K + past).permute(1, 2, 4, 0, 3)
    states_SBTHK = fresh((states, B, T, H, K), pre_BTGHK)
    values = (pre_BTGHK, panels, bias_GHK, state_SBHK, _moves(moves_BT, B, T), states_SBTHK)
    sizes = (B, T, G, H, K, states)
    run(_loop, _loop_parallel, pre_BTGHK.numel() * K, *(flat(value) for value in values), sizes, CODES[cell])
    return states_SBTHK


def backward(
    dstates_SBTHK: Tensor,
    slots_BTGHK: Tensor,
    weight_GHJK: Tensor,
    states_SBTHK: Tensor,
    state_SBHK: Tensor,
    moves_BT: Tensor | None = None,
    cell: str = "lstm",
) -> tuple[Tensor, Tensor]:
    (B, T, _, H, K), G = slots_BTGHK.shape, len(weight_GHJK)
    weight_GHJK = pad(weight_GHJK, (0, -K % UNITS, 0, -K % UNITS, 0, 0, 0, SLOTS - G))
    dslots_BTGHK, dstate_SBHK = fresh(slots_BTGHK.shape, slots_BTGHK), fresh(state_SBHK.shape, state_SBHK)
    values = (dstates_SBTHK, slots_BTGHK, _columns(weight_GHJK), states_SBTHK, state_SBHK, _moves(moves_BT, B, T))
    arrays = [flat(value) for value in (*values, dslots_BTGHK, dstate_SBHK)]
    sizes = (B, T, SLOTS, H, K, len(state_SBHK))
    run(_adjoint, _adjoint_parallel, slots_BTGHK.numel() * K, *arrays, sizes, CODES[cell])
    return dslots_BTGHK, dstate_SBHK


FORWARDS = {"gated_loop": forward, "gated_loop_backward": backward}


def _moves(moves_BT: Tensor | None, B: int, T: int) -> Tensor:
    return torch.zeros(B, T, dtype=torch.int8) if moves_BT is None else moves_BT.to(torch.int8)


def _columns(weight_GHJK: Tensor) -> Tensor:
    """Weights from every gate of every unit, tile by tile, to 64 units at once, and to 16 where fewer are left."""
    _, H, J, K = weight_GHJK.shape
    rows_HRK = weight_GHJK.view(SLOTS, H, -1, UNITS, K).permute(1, 2, 0, 3, 4).reshape(H, SLOTS * J, K)
    split = K // WIDE * WIDE
    parts = [(rows_HRK[:, :, :split], WIDE), (rows_HRK[:, :, split:], UNITS)]
    return torch.cat([w.view(H, SLOTS * J, -1, n).transpose(1, 2).flatten(1) for w, n in parts if w.numel()], 1)


def _product(width):
    """``out += x w`` for four rows or one; ``w`` is a panel of so many columns, ``x`` a multiple of four long."""

    @inner
    def product(x, pitch, panel, count, rows, out):
        for k in range(0, count, 4):
            w = panel[k * width : (k + 4) * width]
            a0, a1, a2, a3 = x[k], x[k + 1], x[k + 2], x[k + 3]
            if rows == 1:
                for j in range(width):
                    out[j] += a0 * w[j] + a1 * w[width + j] + a2 * w[2 * width + j] + a3 * w[3 * width + j]
                continue
            b0, b1, b2, b3 = x[pitch + k], x[pitch + k + 1], x[pitch + k + 2], x[pitch + k + 3]
            at = 2 * pitch + k
            c0, c1, c2, c3 = x[at], x[at + 1], x[at + 2], x[at + 3]
            at = 3 * pitch + k
            d0, d1, d2, d3 = x[at], x[at + 1], x[at + 2], x[at + 3]
            for j in range(width):
                w0, w1, w2, w3 = w[j], w[width + j], w[2 * width + j], w[3 * width + j]
                out[j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                out[width + j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                out[2 * width + j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                out[3 * width + j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3

    return product


_product64, _product16 = _product(WIDE), _product(UNITS)


@inner
def _copy(source, at, target, to, count):
    """So many numbers, most often 16 of them."""
    s, t = source[at : at + count], target[to : to + count]
    if count == UNITS:
        for j in range(UNITS):
            t[j] = s[j]
    else:
        for j in range(count):
            t[j] = s[j]


@inner
def _add(source, at, target, to, count):
    s, t = source[at : at + count], target[to : to + count]
    if count == UNITS:
        for j in range(UNITS):
            t[j] += s[j]
    else:
        for j in range(count):
            t[j] += s[j]


@inner
def _recall(states, first, was, where, sizes):
    """The state that a step began with."""
    (B, T, _, H, K, S), (b, t, h, p, move) = sizes, where
    width = min(UNITS, K - p * UNITS)
    if move > 0:
        was[: 2 * UNITS] = 0
        was[2 * UNITS :] = -np.inf
        return
    for s in range(S):
        if t == 0:
            _copy(first, ((s * B + b) * H + h) * K + p * UNITS, was, s * UNITS, width)
        else:
            _copy(states, (((s * B + b) * T + t - 1) * H + h) * K + p * UNITS, was, s * UNITS, width)


@inner
def _onto(x, panels, tiles, rows, a, later):
    """Add the recurrent products' gradients to those of the outputs, 64 units at once, then 16."""
    units = tiles * UNITS
    p = 0
    while p < tiles:
        many = SLOTS if p + SLOTS <= tiles else 1
        panel = panels[p * UNITS * SLOTS * units : (p + many) * UNITS * SLOTS * units]
        a[:] = 0
        if many == SLOTS:
            _product64(x, SLOTS * units, panel, SLOTS * units, rows, a)
        else:
            _product16(x, SLOTS * units, panel, SLOTS * units, rows, a)
        for row in range(rows):
            for q in range(many):
                _add(a, (row * many + q) * UNITS, later, ((p + q) * ROWS + row) * STATE, UNITS)
        p += many


@inner
def _gates(pre, at, step, width, bias, bias_step, gates, a):
    """Inputs and biases of a tile's gates; the GRU's third gate of the inputs comes fourth."""
    for g in range(SLOTS):
        _copy(bias, g * bias_step, a, g * UNITS, UNITS)
    for g in range(gates):
        slot = SLOTS - 1 if g == gates - 1 else g
        _add(pre, at + g * step, a, slot * UNITS, width)


@inner
def _clear(state, tiles, row):
    """An empty state."""
    for p in range(tiles):
        s = state[(p * ROWS + row) * STATE : (p * ROWS + row + 1) * STATE]
        s[: 2 * UNITS] = 0
        s[2 * UNITS :] = -np.inf


def _loop_body(pre, panels, bias, first, moves, states, sizes, cell):
    B, T, G, H, K, S = sizes
    tiles = (K + UNITS - 1) // UNITS
    units = tiles * UNITS
    for piece in numba.prange((B + ROWS - 1) // ROWS * H):
        begin, h = piece // H * ROWS, piece % H
        rows = min(ROWS, B - begin)
        x, now = np.zeros(ROWS * units, pre.dtype), np.zeros(tiles * ROWS * STATE, pre.dtype)
        a = np.zeros(ROWS * WIDE, pre.dtype)
        for row in range(rows):
            for p in range(tiles):
                width = min(UNITS, K - p * UNITS)
                for s in range(S):
                    at = ((s * B + begin + row) * H + h) * K + p * UNITS
                    _copy(first, at, now, (p * ROWS + row) * STATE + s * UNITS, width)
                _copy(now, (p * ROWS + row) * STATE, x, row * units + p * UNITS, UNITS)
        for t in range(T):
            for row in range(rows):
                if moves[(begin + row) * T + t] > 0:
                    _clear(now, tiles, row)
                    x[row * units : (row + 1) * units] = 0
            for p in range(tiles):
                width = min(UNITS, K - p * UNITS)
                for row in range(rows):
                    at = (((begin + row) * T + t) * G * H + h) * K + p * UNITS
                    gates = a[row * WIDE : (row + 1) * WIDE]
                    _gates(pre, at, H * K, width, bias[h * units + p * UNITS :], H * units, G, gates)
                panel = panels[(h * tiles + p) * units * WIDE : (h * tiles + p + 1) * units * WIDE]
                _product64(x, units, panel, units, rows, a)
                for row in range(rows):
                    if moves[(begin + row) * T + t] >= 0:
                        s0 = (p * ROWS + row) * STATE
                        advance(a[row * WIDE : (row + 1) * WIDE], now[s0 : s0 + STATE], cell)
            for p in range(tiles):
                width = min(UNITS, K - p * UNITS)
                for row in range(rows):
                    s0 = (p * ROWS + row) * STATE
                    _copy(now, s0, x, row * units + p * UNITS, UNITS)
                    for s in range(S):
                        at = (((s * B + begin + row) * T + t) * H + h) * K + p * UNITS
                        _copy(now, s0 + s * UNITS, states, at, width)


def _adjoint_body(dstates, slots, panels, states, first, moves, dslots, dfirst, sizes, cell):
    B, T, _, H, K, S = sizes
    tiles = (K + UNITS - 1) // UNITS
    units = tiles * UNITS
    for piece in numba.prange((B + ROWS - 1) // ROWS * H):
        begin, h = piece // H * ROWS, piece % H
        rows = min(ROWS, B - begin)
        x, a = np.zeros(ROWS * SLOTS * units, slots.dtype), np.zeros(ROWS * WIDE, slots.dtype)
        later, was = np.zeros(tiles * ROWS * STATE, slots.dtype), np.zeros(STATE, slots.dtype)
        panel = panels[h * units * SLOTS * units : (h + 1) * units * SLOTS * units]
        for step in range(T):
            t = T - 1 - step
            for p in range(tiles):
                width = min(UNITS, K - p * UNITS)
                for row in range(rows):
                    b, c0 = begin + row, (p * ROWS + row) * STATE
                    move, grad = moves[b * T + t], later[c0 : c0 + STATE]
                    gates = x[(row * tiles + p) * WIDE : (row * tiles + p + 1) * WIDE]
                    at = ((b * T + t) * SLOTS * H + h) * K + p * UNITS
                    for s in range(S):
                        _add(dstates, (((s * B + b) * T + t) * H + h) * K + p * UNITS, grad, s * UNITS, width)
                    if move < 0:
                        gates[:] = 0
                    else:
                        for g in range(SLOTS):
                            _copy(slots, at + g * H * K, gates, g * UNITS, width)
                        _recall(states, first, was, (b, t, h, p, move), sizes)
                        retreat(gates, was, grad, cell)
                    for g in range(SLOTS):
                        _copy(gates, g * UNITS, dslots, at + g * H * K, width)
            _onto(x, panel, tiles, rows, a, later)
            for row in range(rows):
                if moves[(begin + row) * T + t] > 0:
                    for p in range(tiles):
                        later[(p * ROWS + row) * STATE : (p * ROWS + row + 1) * STATE] = 0
        for row in range(rows):
            for p in range(tiles):
                for s in range(S):
                    at = ((s * B + begin + row) * H + h) * K + p * UNITS
                    _copy(later, (p * ROWS + row) * STATE + s * UNITS, dfirst, at, min(UNITS, K - p * UNITS))


_loop = numba.njit(cache=True, nogil=True, error_model="numpy")(_loop_body)
_loop_parallel = numba.njit(cache=True, nogil=True, error_model="numpy", parallel=True)(_loop_body)
_adjoint = numba.njit(cache=True, nogil=True, error_model="numpy")(_adjoint_body)
_adjoint_parallel = numba.njit(cache=True, nogil=True, error_model="numpy", parallel=True)(_adjoint_body)
