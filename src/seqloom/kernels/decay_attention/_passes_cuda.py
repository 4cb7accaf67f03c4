"""Triton kernels that both kinds of decay share: states at the chunks' edges, outputs, gradients of the values.

Imported by the Triton backend alone.
"""

import triton
import triton.language as tl

from seqloom.kernels.decay_attention._tiles_cuda import (
    decays,
    load_rows,
    load_state,
    span_decays,
    store_rows,
    store_state,
)


@triton.jit
def edge_states(
    x_ptr, v_ptr, a_ptr, forgets_ptr, first_ptr, states_ptr, last_ptr, T, N, H, G,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CHANNEL: tl.constexpr,
    CONSTANT: tl.constexpr, REVERSE: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The state before every chunk, from keys and values; reversed, its adjoint after, from queries and dy."""
    place = tl.program_id(0).to(tl.int64)
    b, h = place // H, place % H
    c = tl.program_id(1) * BK + tl.arange(0, BK)
    d = tl.program_id(2) * BV + tl.arange(0, BV)
    row = tl.arange(0, L)
    state = load_state(first_ptr, place, c, d, K, V).to(WIDE)
    for step in range(N):
        n = N - 1 - step if REVERSE else step
        store_state(states_ptr, state, place * N + n, c, d, K, V)
        t = n * L + row
        x = load_rows(x_ptr, b, h // (H // G), t, c, T, G, K, t < T)
        v = load_rows(v_ptr, b, h, t, d, T, H, V, t < T)
        a = decays(a_ptr, forgets_ptr, b, h, t, c, T, H, K, t < T, CHANNEL, CONSTANT, WIDE)
        if REVERSE:
            weight = tl.exp(tl.cumsum(a, 0))
        else:
            later = (row < L - 1) & (t + 1 < T)
            after = decays(a_ptr, forgets_ptr, b, h, t + 1, c, T, H, K, later, CHANNEL, CONSTANT, WIDE)
            weight = tl.exp(tl.cumsum(after, 0, reverse=True))
        writes = (x.to(WIDE) * weight).to(DOT)
        state = state * tl.exp(tl.sum(a, 0))[:, None]
        state += tl.dot(tl.trans(writes), v.to(DOT), input_precision=PRECISION)
    store_state(last_ptr, state, place, c, d, K, V)


@triton.jit
def outputs(
    q_ptr, k_ptr, v_ptr, a_ptr, forgets_ptr, states_ptr, scores_ptr, y_ptr, T, N, H, G,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CHANNEL: tl.constexpr,
    CONSTANT: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Y of a chunk: from the state before it, and from its own keys."""
    chunk = tl.program_id(0).to(tl.int64)
    place, n = chunk // N, chunk % N
    b, h = place // H, place % H
    d = tl.program_id(1) * BV + tl.arange(0, BV)
    row = tl.arange(0, L)
    t = n * L + row
    y = tl.zeros((L, BV), WIDE)
    scores = tl.zeros((L, L), WIDE)
    for begin in range(0, K, BK):
        c = begin + tl.arange(0, BK)
        q = load_rows(q_ptr, b, h // (H // G), t, c, T, G, K, t < T)
        state = load_state(states_ptr, chunk, c, d, K, V).to(DOT)
        if CHANNEL:
            a = decays(a_ptr, forgets_ptr, b, h, t, c, T, H, K, t < T, CHANNEL, CONSTANT, WIDE)
            q = q.to(WIDE) * tl.exp(tl.cumsum(a, 0))
        else:
            k = load_rows(k_ptr, b, h // (H // G), t, c, T, G, K, t < T)
            scores += tl.dot(q.to(DOT), tl.trans(k.to(DOT)), input_precision=PRECISION)
        y += tl.dot(q.to(DOT), state, input_precision=PRECISION)
    if CHANNEL:
        at = (chunk * L + row[:, None]) * L + row[None, :]
        scores = tl.load(scores_ptr + at, mask=row[:, None] >= row[None, :], other=0.0).to(WIDE)
    else:
        a = decays(a_ptr, forgets_ptr, b, h, t, t, T, H, K, t < T, CHANNEL, CONSTANT, WIDE)
        y = y * tl.exp(tl.cumsum(a, 0))
        scores = scores * span_decays(a_ptr, forgets_ptr, b, h, t, T, H, t < T, CONSTANT, WIDE)
    v = load_rows(v_ptr, b, h, t, d, T, H, V, t < T)
    y += tl.dot(scores.to(DOT), v.to(DOT), input_precision=PRECISION)
    store_rows(y_ptr, y, b, h, t, d, T, H, V, t < T)


@triton.jit
def value_gradients(
    q_ptr, k_ptr, dy_ptr, a_ptr, forgets_ptr, after_ptr, scores_ptr, dv_ptr, T, N, H, G,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, CHANNEL: tl.constexpr,
    CONSTANT: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Dv of a chunk: from the adjoint after it, and from its own queries."""
    chunk = tl.program_id(0).to(tl.int64)
    place, n = chunk // N, chunk % N
    b, h = place // H, place % H
    d = tl.program_id(1) * BV + tl.arange(0, BV)
    row = tl.arange(0, L)
    t = n * L + row
    later = (row < L - 1) & (t + 1 < T)
    dv = tl.zeros((L, BV), WIDE)
    scores = tl.zeros((L, L), WIDE)
    for begin in range(0, K, BK):
        c = begin + tl.arange(0, BK)
        k = load_rows(k_ptr, b, h // (H // G), t, c, T, G, K, t < T)
        after = load_state(after_ptr, chunk, c, d, K, V).to(DOT)
        if CHANNEL:
            a = decays(a_ptr, forgets_ptr, b, h, t + 1, c, T, H, K, later, CHANNEL, CONSTANT, WIDE)
            k = k.to(WIDE) * tl.exp(tl.cumsum(a, 0, reverse=True))
        else:
            q = load_rows(q_ptr, b, h // (H // G), t, c, T, G, K, t < T)
            scores += tl.dot(q.to(DOT), tl.trans(k.to(DOT)), input_precision=PRECISION)
        dv += tl.dot(k.to(DOT), after, input_precision=PRECISION)
    if CHANNEL:
        at = (chunk * L + row[:, None]) * L + row[None, :]
        scores = tl.load(scores_ptr + at, mask=row[:, None] >= row[None, :], other=0.0).to(WIDE)
    else:
        a = decays(a_ptr, forgets_ptr, b, h, t + 1, t, T, H, K, later, CHANNEL, CONSTANT, WIDE)
        dv = dv * tl.exp(tl.cumsum(a, 0, reverse=True))
        scores = scores * span_decays(a_ptr, forgets_ptr, b, h, t, T, H, t < T, CONSTANT, WIDE)
    dy = load_rows(dy_ptr, b, h, t, d, T, H, V, t < T)
    dv += tl.dot(tl.trans(scores.to(DOT)), dy.to(DOT), input_precision=PRECISION)
    store_rows(dv_ptr, dv, b, h, t, d, T, H, V, t < T)


@triton.jit
def head_gradients(
    q_ptr, k_ptr, v_ptr, dy_ptr, a_ptr, forgets_ptr, states_ptr, after_ptr, dq_ptr, dk_ptr, da_ptr, T, N, H, G, B,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    CONSTANT: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Dq and dk of a chunk and this block of channels' share of the decays' gradients; one decay a head."""
    chunk = tl.program_id(0).to(tl.int64)
    place, n = chunk // N, chunk % N
    b, h = place // H, place % H
    c = tl.program_id(1) * BK + tl.arange(0, BK)
    row = tl.arange(0, L)
    t = n * L + row
    later = (row < L - 1) & (t + 1 < T)
    dq = tl.zeros((L, BK), WIDE)
    dk = tl.zeros((L, BK), WIDE)
    slopes = tl.zeros((L, L), WIDE)
    across = tl.zeros((BK,), WIDE)  # what enters the chunk and leaves it
    for begin in range(0, V, BV):
        d = begin + tl.arange(0, BV)
        v = load_rows(v_ptr, b, h, t, d, T, H, V, t < T).to(DOT)
        dy = load_rows(dy_ptr, b, h, t, d, T, H, V, t < T).to(DOT)
        state = load_state(states_ptr, chunk, c, d, K, V)
        after = load_state(after_ptr, chunk, c, d, K, V)
        across += tl.sum(state.to(WIDE) * after.to(WIDE), 1)
        dq += tl.dot(dy, tl.trans(state.to(DOT)), input_precision=PRECISION)
        dk += tl.dot(v, tl.trans(after.to(DOT)), input_precision=PRECISION)
        slopes += tl.dot(dy, tl.trans(v), input_precision=PRECISION)
    a = decays(a_ptr, forgets_ptr, b, h, t, t, T, H, K, t < T, False, CONSTANT, WIDE)
    rest = decays(a_ptr, forgets_ptr, b, h, t + 1, t, T, H, K, later, False, CONSTANT, WIDE)
    q = load_rows(q_ptr, b, h // (H // G), t, c, T, G, K, t < T)
    k = load_rows(k_ptr, b, h // (H // G), t, c, T, G, K, t < T)
    slopes = (slopes * span_decays(a_ptr, forgets_ptr, b, h, t, T, H, t < T, CONSTANT, WIDE)).to(DOT)
    dq = dq * tl.exp(tl.cumsum(a, 0)) + tl.dot(slopes, k.to(DOT), input_precision=PRECISION)
    dk = dk * tl.exp(tl.cumsum(rest, 0, reverse=True))
    leaves = tl.sum(k.to(WIDE) * dk, 1)
    inner = tl.dot(tl.trans(slopes), q.to(DOT), input_precision=PRECISION)
    dk += inner
    ends = tl.sum(q.to(WIDE) * dq - k.to(WIDE) * inner, 1)
    # A position's decay is passed by what enters and leaves the chunk, by what left from before it, and by what ends
    # from it on, less what began there. Sums within a chunk, so that float32 does not gather errors along the row.
    da = tl.sum(across * tl.exp(tl.sum(a, 0)), 0) + tl.cumsum(leaves, 0) - leaves + tl.cumsum(ends, 0, reverse=True)
    da = tl.where(tl.max(a, 1) == float("-inf"), 0.0, da)
    store_rows(dq_ptr, dq, b, h, t, c, T, H, K, t < T)
    store_rows(dk_ptr, dk, b, h, t, c, T, H, K, t < T)
    tl.store(da_ptr + ((tl.program_id(1) * B + b) * T + t) * H + h, da, mask=t < T)
