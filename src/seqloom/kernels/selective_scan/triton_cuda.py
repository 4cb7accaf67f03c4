from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqloom.kernels.selective_scan import CHUNK, common, starts, state_dtype

CHANNELS = 32  # of one program, which is one warp: a lane holds a channel's states, so that sums over them cost nothing
AHEAD = 8  # steps whose inputs are loaded together in the forward pass
STEPS = 4  # steps whose states a program of the backward pass holds in registers


def refuses(*inputs: Any) -> str | None:
    """Serves the scan (x, dt, a, b, c, h, segments) and its adjoint (dy, dlast, dstates, x, ..., states, segments)."""
    *tensors, segments_BT = inputs
    x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN = tensors[3:9] if len(tensors) > 6 else tensors
    (B, T, E), N = x_BTE.shape, a_EN.shape[1]
    wanted = ((dt_BTE, (B, T, E)), (a_EN, (E, N)), (b_BTN, (B, T, N)), (c_BTN, (B, T, N)), (h_BEN, (B, E, N)))
    if any(tuple(value.shape) != shape for value, shape in wanted):
        return f"the inputs' shapes do not fit (B, T, E) = {(B, T, E)} and N = {N}"
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    if not all(value.dtype in kinds for value in tensors):
        return "an input is not real"
    if segments_BT is not None and tuple(segments_BT.shape) != (B, T):
        return "the segments are of another shape"
    if N > 64:
        return f"a program holds at most 64 states of a channel, not {N}"
    return "fewer than two steps: a call would cost more than the work" if T < 2 or not x_BTE.numel() else None


def forward(
    x_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    h_BEN: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    given = [value.detach().contiguous() for value in (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN)]
    (B, T, E), N, kind = x_BTE.shape, a_EN.shape[1], state_dtype(h_BEN)
    y_BTE = torch.empty_like(given[0])
    last_BEN = torch.empty_like(given[5], dtype=kind)
    states_BCEN = last_BEN.new_empty(B, (T - 1) // CHUNK, E, N)
    pointers = (*given, _starts(segments_BT, x_BTE), y_BTE, last_BEN, states_BCEN)
    sizes = {"T": T, "E": E, "N": N, **_blocks(segments_BT, given), "AHEAD": AHEAD}
    _scan[(triton.cdiv(E, CHANNELS), B)](*pointers, **sizes, num_warps=1)
    return y_BTE, last_BEN, states_BCEN


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
    tensors = [value.detach().contiguous() for value in (dy_BTE, dlast_BEN, dstates_BCEN, *given, states_BCEN)]
    (B, T, E), N, wide = x_BTE.shape, a_EN.shape[1], common(*given)
    blocks, states = triton.cdiv(E, CHANNELS), triton.next_power_of_2(N)
    dx_BTE, ddt_BTE = (torch.empty_like(value) for value in tensors[3:5])

    def parts(*size: int) -> Tensor:
        return x_BTE.new_empty(size, dtype=wide)

    sums = parts(B, E, N), parts(blocks, B, T, N), parts(blocks, B, T, N), parts(B, E, N)
    held = parts(blocks, B, CHUNK // STEPS, states, CHANNELS)
    pointers = (*tensors, _starts(segments_BT, x_BTE), held, dx_BTE, ddt_BTE, *sums)
    sizes = {"B": B, "T": T, "E": E, "N": N, **_blocks(segments_BT, tensors), "STEPS": STEPS}
    _adjoint[(blocks, B)](*pointers, **sizes, num_warps=1)
    da, db, dc, dh = sums[0].sum(0), sums[1].sum(0), sums[2].sum(0), sums[3]
    grads = zip((dx_BTE, ddt_BTE, da, db, dc, dh), given, strict=True)
    return tuple(value.to(like.dtype) for value, like in grads)  # type: ignore[bad-return]


FORWARDS = {"selective_scan": forward, "selective_scan_backward": backward}


def _starts(segments_BT: Tensor | None, x_BTE: Tensor) -> Tensor:
    """(T, B), or a stand-in that no program reads."""
    start_TB = starts(segments_BT)
    return x_BTE.new_zeros(1, dtype=torch.int8) if start_TB is None else start_TB.to(torch.int8).T.contiguous()


def _blocks(segments_BT: Tensor | None, tensors: list[Tensor]) -> dict[str, Any]:
    wide = common(*tensors)
    N = tensors[-1].shape[-1]
    return {
        "PACKED": segments_BT is not None,
        "WIDE": tl.float64 if wide == torch.float64 else tl.float32,
        "CHUNK": CHUNK,
        "STATES": triton.next_power_of_2(N),
        "CHANNELS": CHANNELS,
    }


@triton.jit
def _scan(
    x_ptr,
    dt_ptr,
    a_ptr,
    b_ptr,
    c_ptr,
    h_ptr,
    start_ptr,
    y_ptr,
    last_ptr,
    states_ptr,
    T,
    E,
    N,
    PACKED: tl.constexpr,
    WIDE: tl.constexpr,
    CHUNK: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    AHEAD: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)  # 64-bit before any pointer arithmetic
    e, n = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    has_e, has_n = e < E, n < N
    inside, within = has_n[:, None] & has_e[None, :], e[None, :] * N + n[:, None]
    rate = tl.load(a_ptr + within, mask=inside, other=0.0).to(WIDE)
    state = tl.load(h_ptr + row * E * N + within, mask=inside, other=0.0).to(WIDE)
    for begin in range(0, T, AHEAD):
        xs, steps, bs, cs, begins = (), (), (), (), ()
        for k in tl.static_range(AHEAD):
            at = row * T + begin + k
            here = begin + k < T  # beyond the end dt = 0: the state is kept
            steps += (tl.load(dt_ptr + at * E + e, mask=has_e & here, other=0.0).to(WIDE),)
            xs += (tl.load(x_ptr + at * E + e, mask=has_e & here, other=0.0).to(WIDE),)
            bs += (tl.load(b_ptr + at * N + n, mask=has_n & here, other=0.0).to(WIDE),)
            cs += (tl.load(c_ptr + at * N + n, mask=has_n & here, other=0.0).to(WIDE),)
            if PACKED:
                begins += (tl.load(start_ptr + at, mask=here, other=0),)
        for k in tl.static_range(AHEAD):
            if PACKED:
                state = tl.where(begins[k] != 0, 0.0, state)
            into = steps[k] * xs[k]
            state = tl.exp(steps[k][None, :] * rate) * state + into[None, :] * bs[k][:, None]
            y = tl.sum(state * cs[k][:, None], 0)
            tl.store(y_ptr + (row * T + begin + k) * E + e, y, mask=has_e & (begin + k < T))
        end = begin + AHEAD
        if (end % CHUNK == 0) & (end < T):
            kept = row * ((T - 1) // CHUNK) + end // CHUNK - 1
            tl.store(states_ptr + kept * E * N + within, state, mask=inside)
    tl.store(last_ptr + row * E * N + within, state, mask=inside)


@triton.jit
def _replay(
    held_ptr,
    state,
    rate,
    dt_ptr,
    x_ptr,
    b_ptr,
    start_ptr,
    row,
    chunk,
    e,
    n,
    T,
    E,
    N,
    PACKED: tl.constexpr,
    CHUNK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Run a chunk again and keep the state before every piece of it."""
    has_e, has_n = e < E, n < N
    for piece in range(CHUNK // STEPS):
        tl.store(held_ptr + piece * state.shape[0] * state.shape[1], state)
        for k in tl.static_range(STEPS):
            t = chunk * CHUNK + piece * STEPS + k
            at, here = row * T + t, t < T
            step = tl.load(dt_ptr + at * E + e, mask=has_e & here, other=0.0).to(state.dtype)
            x = tl.load(x_ptr + at * E + e, mask=has_e & here, other=0.0).to(state.dtype)
            b = tl.load(b_ptr + at * N + n, mask=has_n & here, other=0.0).to(state.dtype)
            if PACKED:
                state = tl.where(tl.load(start_ptr + at, mask=here, other=0) != 0, 0.0, state)
            state = tl.exp(step[None, :] * rate) * state + (step * x)[None, :] * b[:, None]


@triton.jit
def _adjoint(
    dy_ptr,
    dlast_ptr,
    dstates_ptr,
    x_ptr,
    dt_ptr,
    a_ptr,
    b_ptr,
    c_ptr,
    h_ptr,
    states_ptr,
    start_ptr,
    held_ptr,
    dx_ptr,
    ddt_ptr,
    da_ptr,
    db_ptr,
    dc_ptr,
    dh_ptr,
    B,
    T,
    E,
    N,
    PACKED: tl.constexpr,
    WIDE: tl.constexpr,
    CHUNK: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    block, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    lane, n = tl.arange(0, CHANNELS), tl.arange(0, STATES)
    e = block * CHANNELS + lane
    has_e, has_n = e < E, n < N
    inside, within = has_n[:, None] & has_e[None, :], e[None, :] * N + n[:, None]
    rate = tl.load(a_ptr + within, mask=inside, other=0.0).to(WIDE)
    carry = tl.load(dlast_ptr + row * E * N + within, mask=inside, other=0.0).to(WIDE)
    total, chunks = tl.zeros_like(rate), tl.cdiv(T, CHUNK)
    held_ptr += (block * B + row) * (CHUNK // STEPS) * STATES * CHANNELS + n[:, None] * CHANNELS + lane[None, :]
    sums = (block * B + row) * T
    for turn in range(chunks):
        chunk = chunks - 1 - turn
        kept = row * (chunks - 1) + chunk
        state = tl.load(h_ptr + row * E * N + within, mask=inside & (chunk == 0), other=0.0).to(WIDE)
        before = states_ptr + (kept - 1) * E * N + within
        state += tl.load(before, mask=inside & (chunk > 0), other=0.0).to(WIDE)
        carry += tl.load(dstates_ptr + kept * E * N + within, mask=inside & (turn > 0), other=0.0).to(WIDE)
        _replay(held_ptr, state, rate, dt_ptr, x_ptr, b_ptr, start_ptr, row, chunk, e, n, T, E, N, PACKED, CHUNK, STEPS)
        tl.debug_barrier()  # what one lane wrote another may read
        share = tl.zeros_like(rate)
        for back in range(CHUNK // STEPS):
            piece = CHUNK // STEPS - 1 - back
            first = chunk * CHUNK + piece * STEPS
            state = tl.load(held_ptr + piece * STATES * CHANNELS)
            decays, pasts, xs, steps, bs, dys = (), (), (), (), (), ()
            for k in tl.static_range(STEPS):
                at, here = row * T + first + k, first + k < T
                step = tl.load(dt_ptr + at * E + e, mask=has_e & here, other=0.0).to(WIDE)
                x = tl.load(x_ptr + at * E + e, mask=has_e & here, other=0.0).to(WIDE)
                dy = tl.load(dy_ptr + at * E + e, mask=has_e & here, other=0.0).to(WIDE)
                b = tl.load(b_ptr + at * N + n, mask=has_n & here, other=0.0).to(WIDE)
                decay = tl.exp(step[None, :] * rate)
                if PACKED:
                    decay = tl.where(tl.load(start_ptr + at, mask=here, other=0) != 0, 0.0, decay)
                past = decay * state
                state = past + (step * x)[None, :] * b[:, None]
                tl.store(dc_ptr + (sums + first + k) * N + n, tl.sum(state * dy[None, :], 1), mask=has_n & here)
                decays, pasts, xs = decays + (decay,), pasts + (past,), xs + (x,)  # noqa: RUF005 (no stars in Triton)
                steps, bs, dys = steps + (step,), bs + (b,), dys + (dy,)  # noqa: RUF005
            for k in tl.static_range(STEPS - 1, -1, -1):
                at, here = row * T + first + k, first + k < T
                c = tl.load(c_ptr + at * N + n, mask=has_n & here, other=0.0).to(WIDE)
                g = carry + c[:, None] * dys[k][None, :]
                drive, w = tl.sum(g * bs[k][:, None], 0), g * pasts[k]
                slope = tl.sum(w * rate, 0) + drive * xs[k]
                share += w * steps[k][None, :]
                db = tl.sum(g * (steps[k] * xs[k])[None, :], 1)
                tl.store(db_ptr + (sums + first + k) * N + n, db, mask=has_n & here)
                tl.store(dx_ptr + at * E + e, drive * steps[k], mask=has_e & here)
                tl.store(ddt_ptr + at * E + e, slope, mask=has_e & here)
                carry = g * decays[k]
        tl.debug_barrier()  # the next chunk writes over what this one read
        total += share
    tl.store(da_ptr + row * E * N + within, total, mask=inside)
    tl.store(dh_ptr + row * E * N + within, carry, mask=inside)
