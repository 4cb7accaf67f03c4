"""A program runs some rows of a head through all columns: the state stays on the chip, weights come from the cache."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqloom.kernels.gated_loop import GATES

ROWS = 16  # the fewest that a matrix product takes
WIDEST = 128  # units of a head: the gates of a tile and a panel of weights must fit the chip
CODES = {"lstm": 0, "gru": 1, "slstm": 2, "slstm_exp": 3}
INTERPRETED = triton.knobs.runtime.interpret  # read once: a compiler cannot trace the reading


def refuses(*inputs: Any) -> str | None:
    """Serves the loop (pre, weight, state, ...) and its adjoint (dstates, slots, weight, states, state, ...)."""
    floats = [value for value in inputs if isinstance(value, Tensor) and value.is_floating_point()]
    gates = floats[0] if floats[0].shape[2] == floats[1].shape[0] and floats[1].ndim == 4 else floats[1]
    if inputs[-1] not in CODES:
        return f"no cell is called {inputs[-1]!r}"
    if any(value.dtype != gates.dtype for value in floats) or gates.dtype not in (torch.float32, torch.float64):
        return "the inputs are not all float32 or all float64"
    if gates.dtype == torch.float64 and not INTERPRETED:
        return "it has no tensor cores for float64"
    if gates.shape[-1] > WIDEST:
        return f"heads of {gates.shape[-1]} units, {WIDEST} are the most"
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
    (B, T, G, H, K), S = pre_BTGHK.shape, len(state_SBHK)
    states_SBTHK = torch.empty((S, B, T, H, K), dtype=pre_BTGHK.dtype, device=pre_BTGHK.device)
    bias_GHK = pre_BTGHK.new_zeros(G, H, K) if bias_GHK is None else bias_GHK
    tensors = _plain(pre_BTGHK, weight_GHJK, bias_GHK, state_SBHK)
    pointers = (*tensors, _moves(moves_BT), states_SBTHK)
    _loop[(triton.cdiv(B, ROWS), H)](*pointers, B, T, H, **_sizes(pre_BTGHK, cell, G), num_warps=4)
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
    (B, T, _, H, K), dtype = slots_BTGHK.shape, slots_BTGHK.dtype
    dslots_BTGHK = torch.empty((B, T, 4, H, K), dtype=dtype, device=slots_BTGHK.device)
    dstate_SBHK = torch.empty(state_SBHK.shape, dtype=dtype, device=slots_BTGHK.device)
    tensors = _plain(dstates_SBTHK, slots_BTGHK, weight_GHJK, states_SBTHK, state_SBHK)
    pointers = (*tensors, _moves(moves_BT), dslots_BTGHK, dstate_SBHK)
    sizes = _sizes(slots_BTGHK, cell, len(weight_GHJK))
    _adjoint[(triton.cdiv(B, ROWS), H)](*pointers, B, T, H, **sizes, num_warps=4)
    return dslots_BTGHK, dstate_SBHK


FORWARDS = {"gated_loop": forward, "gated_loop_backward": backward}


def _plain(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.detach().contiguous() for value in tensors)


def _moves(moves_BT: Tensor | None) -> Tensor | None:
    return None if moves_BT is None else moves_BT.to(torch.int8).contiguous()


def _sizes(like: Tensor, cell: str, gates: int) -> dict[str, Any]:
    assert gates == GATES[cell]
    K = like.shape[-1]
    return {"K": K, "G": gates, "CELL": CODES[cell], "BR": ROWS, "BK": max(16, triton.next_power_of_2(K))}


@triton.jit
def _sigmoid(x):
    e = tl.exp(-tl.abs(x))  # never above 1
    return tl.where(x >= 0, 1.0, e) / (1 + e)


@triton.jit
def _tanh(x):
    return 2 * _sigmoid(2 * x) - 1


@triton.jit
def _forgotten(f, CELL: tl.constexpr):
    """The logarithm of the forget gate."""
    return f if CELL == 3 else tl.minimum(f, 0.0) - tl.log(1 + tl.exp(-tl.abs(f)))


@triton.jit
def _product(h, w_ptr, g, head, H, unit, K: tl.constexpr, TURNED: tl.constexpr, BK: tl.constexpr):
    """``h W_g^T``, or ``h W_g`` where it is turned."""
    other = tl.arange(0, BK)
    rows, columns = (other[:, None], unit[None, :]) if TURNED else (unit[None, :], other[:, None])
    inside = (unit < K)[None, :] & (other < K)[:, None]
    w = tl.load(w_ptr + ((g * H + head) * K + rows) * K + columns, mask=inside, other=0.0)
    return tl.dot(h, w, input_precision="ieee", out_dtype=h.dtype)


@triton.jit
def _loop(
    pre_ptr,
    weight_ptr,
    bias_ptr,
    first_ptr,
    moves_ptr,
    states_ptr,
    B,
    T,
    H,
    K: tl.constexpr,
    G: tl.constexpr,
    CELL: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
):
    b = (tl.program_id(0) * BR + tl.arange(0, BR)).to(tl.int64)  # 64-bit before any pointer arithmetic
    head, unit = tl.program_id(1), tl.arange(0, BK)
    inside = (b < B)[:, None] & (unit < K)[None, :]
    at = (b[:, None] * H + head) * K + unit[None, :]
    size = B.to(tl.int64) * H * K
    h = tl.load(first_ptr + at, mask=inside, other=0.0)
    c = tl.load(first_ptr + size + at, mask=inside, other=0.0) if CELL != 1 else h
    n = tl.load(first_ptr + 2 * size + at, mask=inside, other=0.0) if CELL >= 2 else h
    for t in range(T):
        stays = (b < 0)[:, None]
        if moves_ptr is not None:
            move = tl.load(moves_ptr + b * T + t, mask=b < B, other=0)[:, None]
            h, c = tl.where(move > 0, 0.0, h), tl.where(move > 0, 0.0, c)
            n = tl.where(move > 0, float("-inf"), n)
            stays = move < 0
        row = (b[:, None] * T + t) * G * H * K + head * K + unit[None, :]
        s0 = tl.load(pre_ptr + row, mask=inside, other=0.0)
        s1 = tl.load(pre_ptr + row + H * K, mask=inside, other=0.0)
        s2 = tl.load(pre_ptr + row + 2 * H * K, mask=inside, other=0.0)
        s3 = tl.load(pre_ptr + row + 3 * H * K, mask=inside, other=0.0) if G == 4 else s2
        bias = bias_ptr + head * K + unit
        p0 = _product(h, weight_ptr, 0, head, H, unit, K, False, BK)
        p1 = _product(h, weight_ptr, 1, head, H, unit, K, False, BK)
        p2 = _product(h, weight_ptr, 2, head, H, unit, K, False, BK)
        p0 += tl.load(bias, mask=unit < K, other=0.0)[None, :]
        p1 += tl.load(bias + H * K, mask=unit < K, other=0.0)[None, :]
        p2 += tl.load(bias + 2 * H * K, mask=unit < K, other=0.0)[None, :]
        if G == 4:
            p3 = _product(h, weight_ptr, 3, head, H, unit, K, False, BK)
            s3 += p3 + tl.load(bias + 3 * H * K, mask=unit < K, other=0.0)[None, :]
        s0, s1 = s0 + p0, s1 + p1
        if CELL == 0:
            after_c = _sigmoid(s1) * c + _sigmoid(s0) * _tanh(s2 + p2)
            after_h, after_n = _sigmoid(s3) * _tanh(after_c), n
        elif CELL == 1:
            new = _tanh(s2 + _sigmoid(s0) * p2)
            after_h = new + _sigmoid(s1) * (h - new)
            after_c, after_n = c, n
        else:
            past = n + _forgotten(s1, CELL)
            lead = s0 - past
            after_c = c + _sigmoid(lead) * (_tanh(s2 + p2) - c)
            after_n = tl.maximum(past, s0) + tl.log(1 + tl.exp(-tl.abs(lead)))
            after_h = _sigmoid(s3) * after_c
        h, c, n = tl.where(stays, h, after_h), tl.where(stays, c, after_c), tl.where(stays, n, after_n)
        out = ((b[:, None] * T + t) * H + head) * K + unit[None, :]
        tl.store(states_ptr + out, h, mask=inside)
        if CELL != 1:
            tl.store(states_ptr + size * T + out, c, mask=inside)
        if CELL >= 2:
            tl.store(states_ptr + 2 * size * T + out, n, mask=inside)


@triton.jit
def _retreat(s0, s1, s2, s3, h, c, n, dh, dc, dn, CELL: tl.constexpr):
    """Gradients of the gates, and of the state before them apart from the recurrent products."""
    zero = tl.zeros_like(dh)
    if CELL == 0:
        i, f, g, o = _sigmoid(s0), _sigmoid(s1), _tanh(s2), _sigmoid(s3)
        shown = _tanh(f * c + i * g)
        d = dc + dh * o * (1 - shown * shown)
        d0, d1, d2 = d * g * i * (1 - i), d * c * f * (1 - f), d * i * (1 - g * g)
        d3 = dh * shown * o * (1 - o)
        direct_h, direct_c, direct_n = zero, d * f, zero
    elif CELL == 1:
        r, z = _sigmoid(s0), _sigmoid(s1)
        new = _tanh(s3 + r * s2)
        d3 = dh * (1 - z) * (1 - new * new)
        d0, d1, d2 = d3 * s2 * r * (1 - r), dh * (h - new) * z * (1 - z), d3 * r
        direct_h, direct_c, direct_n = dh * z, zero, zero
    else:
        z, o = _tanh(s2), _sigmoid(s3)
        past = n + _forgotten(s1, CELL)
        share, keep = _sigmoid(s0 - past), _sigmoid(past - s0)
        d = dc + dh * o
        lead = d * (z - c) * share * keep
        back = dn * keep - lead
        d0, d1 = lead + dn * share, back if CELL == 3 else back * _sigmoid(-s1)
        d2, d3 = d * share * (1 - z * z), dh * (c + share * (z - c)) * o * (1 - o)
        direct_h, direct_c, direct_n = zero, d * keep, back
    return d0, d1, d2, d3, direct_h, direct_c, direct_n


@triton.jit
def _adjoint(
    dstates_ptr,
    slots_ptr,
    weight_ptr,
    states_ptr,
    first_ptr,
    moves_ptr,
    dslots_ptr,
    dfirst_ptr,
    B,
    T,
    H,
    K: tl.constexpr,
    G: tl.constexpr,
    CELL: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
):
    b = (tl.program_id(0) * BR + tl.arange(0, BR)).to(tl.int64)
    head, unit = tl.program_id(1), tl.arange(0, BK)
    inside = (b < B)[:, None] & (unit < K)[None, :]
    at = (b[:, None] * H + head) * K + unit[None, :]
    size = B.to(tl.int64) * H * K
    dh = tl.zeros((BR, BK), slots_ptr.dtype.element_ty)
    dc, dn = dh, dh
    for step in range(T):
        t = T - 1 - step
        here = ((b[:, None] * T + t) * H + head) * K + unit[None, :]
        was, base = (here - H * K, states_ptr) if t > 0 else (at, first_ptr)
        whole = size * T if t > 0 else size
        h = tl.load(base + was, mask=inside, other=0.0)
        c = tl.load(base + whole + was, mask=inside, other=0.0) if CELL != 1 else h
        n = tl.load(base + 2 * whole + was, mask=inside, other=0.0) if CELL >= 2 else h
        starts, stays = (b < 0)[:, None], (b < 0)[:, None]
        if moves_ptr is not None:
            move = tl.load(moves_ptr + b * T + t, mask=b < B, other=0)[:, None]
            starts, stays = move > 0, move < 0
            h, c, n = tl.where(starts, 0.0, h), tl.where(starts, 0.0, c), tl.where(starts, float("-inf"), n)
        dh += tl.load(dstates_ptr + here, mask=inside, other=0.0)
        if CELL != 1:
            dc += tl.load(dstates_ptr + size * T + here, mask=inside, other=0.0)
        if CELL >= 2:
            dn += tl.load(dstates_ptr + 2 * size * T + here, mask=inside, other=0.0)
        row = (b[:, None] * T + t) * 4 * H * K + head * K + unit[None, :]
        s0 = tl.load(slots_ptr + row, mask=inside, other=0.0)
        s1 = tl.load(slots_ptr + row + H * K, mask=inside, other=0.0)
        s2 = tl.load(slots_ptr + row + 2 * H * K, mask=inside, other=0.0)
        s3 = tl.load(slots_ptr + row + 3 * H * K, mask=inside, other=0.0)
        d0, d1, d2, d3, direct_h, direct_c, direct_n = _retreat(s0, s1, s2, s3, h, c, n, dh, dc, dn, CELL)
        d0, d1 = tl.where(stays, 0.0, d0), tl.where(stays, 0.0, d1)
        d2, d3 = tl.where(stays, 0.0, d2), tl.where(stays, 0.0, d3)
        tl.store(dslots_ptr + row, d0, mask=inside)
        tl.store(dslots_ptr + row + H * K, d1, mask=inside)
        tl.store(dslots_ptr + row + 2 * H * K, d2, mask=inside)
        tl.store(dslots_ptr + row + 3 * H * K, d3, mask=inside)
        direct_h += _product(d0, weight_ptr, 0, head, H, unit, K, True, BK)
        direct_h += _product(d1, weight_ptr, 1, head, H, unit, K, True, BK)
        direct_h += _product(d2, weight_ptr, 2, head, H, unit, K, True, BK)
        if G == 4:
            direct_h += _product(d3, weight_ptr, 3, head, H, unit, K, True, BK)
        dh = tl.where(stays, dh, tl.where(starts, 0.0, direct_h))
        dc = tl.where(stays, dc, tl.where(starts, 0.0, direct_c))
        dn = tl.where(stays, dn, tl.where(starts, 0.0, direct_n))
    tl.store(dfirst_ptr + at, dh, mask=inside)
    if CELL != 1:
        tl.store(dfirst_ptr + size + at, dc, mask=inside)
    if CELL >= 2:
        tl.store(dfirst_ptr + 2 * size + at, dn, mask=inside)
