"""Triton kernels for one decay a key channel: pairs within a chunk, in pieces of S steps.

Between two pieces the decays split at the later piece's first step into two factors <= 1, and the pair is a matrix
product. Within a piece every pair is summed as it is. No exponent is ever positive.

Imported by the Triton backend alone.
"""

import triton
import triton.language as tl

from seqloom.kernels.decay_attention._tiles_cuda import decays, load_rows, load_state, store_rows


@triton.jit
def piece(
    x_ptr, a_ptr, forgets_ptr, b, h, g, t, c, T, H, G, K, CONSTANT: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Rows of queries or keys, their log-decays, and the sums of these up to each step and after it."""
    row = t - tl.min(t, 0)
    later = (row < tl.max(row, 0)) & (t + 1 < T)
    x = load_rows(x_ptr, b, g, t, c, T, G, K, t < T).to(WIDE)
    a = decays(a_ptr, forgets_ptr, b, h, t, c, T, H, K, t < T, True, CONSTANT, WIDE)
    after = decays(a_ptr, forgets_ptr, b, h, t + 1, c, T, H, K, later, True, CONSTANT, WIDE)
    return x, a, tl.cumsum(a, 0), tl.cumsum(after, 0, reverse=True)


@triton.jit
def one_step(x, row, s):
    """Row s of a tile, as a vector."""
    return tl.sum(tl.where((row == s)[:, None], x, 0.0), 0)


@triton.jit
def channel_scores(
    q_ptr, k_ptr, a_ptr, forgets_ptr, scores_ptr, T, N, H, G,
    K: tl.constexpr, L: tl.constexpr, S: tl.constexpr, BK: tl.constexpr,
    CONSTANT: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """scores_ts = sum_c q_t k_s exp(sum of the decays after s up to t), t >= s, of a piece of a chunk."""
    chunk = tl.program_id(0).to(tl.int64)
    place, n, i = chunk // N, chunk % N, tl.program_id(1)
    b, h, g = place // H, place % H, (place % H) // (H // G)
    c = tl.arange(0, BK)
    row = tl.arange(0, S)
    at = scores_ptr + (chunk * L + i * S + row[:, None]) * L + row[None, :]
    t = n * L + i * S + row
    q, a, prefix, suffix = piece(q_ptr, a_ptr, forgets_ptr, b, h, g, t, c, T, H, G, K, CONSTANT, WIDE)
    reads = (q * tl.exp(prefix)).to(DOT)
    between = tl.zeros((BK,), WIDE)
    for back in range(i):
        j = i - 1 - back
        k, b_j, prefix, suffix = piece(
            k_ptr, a_ptr, forgets_ptr, b, h, g, n * L + j * S + row, c, T, H, G, K, CONSTANT, WIDE
        )  # fmt: skip
        writes = (k * tl.exp(suffix + between[None, :])).to(DOT)
        tl.store(at + j * S, tl.dot(reads, tl.trans(writes), input_precision=PRECISION))
        between += tl.sum(b_j, 0)
    k = load_rows(k_ptr, b, g, t, c, T, G, K, t < T).to(WIDE)
    own = tl.zeros((S, S), WIDE)
    since = tl.zeros((S, BK), WIDE)  # decays after s up to each step, s going backwards
    for back in range(S):
        s = S - 1 - back
        column = tl.sum(q * one_step(k, row, s)[None, :] * tl.exp(since), 1)
        own = tl.where((row[None, :] == s) & (row[:, None] >= s), column[:, None], own)
        since += tl.where((row >= s)[:, None], one_step(a, row, s)[None, :], 0.0)
    tl.store(at + i * S, own)


@triton.jit
def channel_slopes(
    v_ptr, dy_ptr, slopes_ptr, T, N, H,
    V: tl.constexpr, L: tl.constexpr, BV: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """slopes_ts = dy_t . v_s of a chunk."""
    chunk = tl.program_id(0).to(tl.int64)
    place, n = chunk // N, chunk % N
    b, h = place // H, place % H
    row = tl.arange(0, L)
    t = n * L + row
    slopes = tl.zeros((L, L), WIDE)
    for begin in range(0, V, BV):
        d = begin + tl.arange(0, BV)
        v = load_rows(v_ptr, b, h, t, d, T, H, V, t < T).to(DOT)
        dy = load_rows(dy_ptr, b, h, t, d, T, H, V, t < T).to(DOT)
        slopes += tl.dot(dy, tl.trans(v), input_precision=PRECISION)
    tl.store(slopes_ptr + (chunk * L + row[:, None]) * L + row[None, :], slopes)


@triton.jit
def own_pairs(q, k, a, slopes_ptr, row, S: tl.constexpr, L: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr):
    """Gradients of q and k by the pairs of one piece."""
    dq = tl.zeros((S, BK), WIDE)
    dk = tl.zeros((S, BK), WIDE)
    since = tl.zeros((S, BK), WIDE)
    for back in range(S):
        s = S - 1 - back
        slope = tl.load(slopes_ptr + row * L + s, mask=row >= s, other=0.0).to(WIDE)
        weight = slope[:, None] * tl.exp(since)
        dq += weight * one_step(k, row, s)[None, :]
        dk += tl.where((row == s)[:, None], tl.sum(weight * q, 0)[None, :], 0.0)
        since += tl.where((row >= s)[:, None], one_step(a, row, s)[None, :], 0.0)
    return dq, dk


@triton.jit
def read_edges(
    v_ptr, dy_ptr, states_ptr, after_ptr, chunk, b, h, t, c, T, H,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What dy reads of the state before the chunk, and v of the adjoint after it."""
    dq = tl.zeros((S, BK), WIDE)
    dk = tl.zeros((S, BK), WIDE)
    for begin in range(0, V, BV):
        d = begin + tl.arange(0, BV)
        v = load_rows(v_ptr, b, h, t, d, T, H, V, t < T).to(DOT)
        dy = load_rows(dy_ptr, b, h, t, d, T, H, V, t < T).to(DOT)
        state = load_state(states_ptr, chunk, c, d, K, V).to(DOT)
        after = load_state(after_ptr, chunk, c, d, K, V).to(DOT)
        dq += tl.dot(dy, tl.trans(state), input_precision=PRECISION)
        dk += tl.dot(v, tl.trans(after), input_precision=PRECISION)
    return dq, dk


@triton.jit
def channel_gradients(
    q_ptr, k_ptr, v_ptr, dy_ptr, a_ptr, forgets_ptr, states_ptr, last_ptr, after_ptr, slopes_ptr,
    dq_ptr, dk_ptr, da_ptr, T, N, H, G,
    K: tl.constexpr, V: tl.constexpr, L: tl.constexpr, S: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    CONSTANT: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dk and the decays' gradients of a chunk, piece by piece from its end."""
    chunk = tl.program_id(0).to(tl.int64)
    place, n = chunk // N, chunk % N
    b, h, g = place // H, place % H, (place % H) // (H // G)
    c = tl.program_id(1) * BK + tl.arange(0, BK)
    row = tl.arange(0, S)
    passes = tl.zeros((BK,), WIDE)  # what passes the chunk's end: the sum over values of its state and the adjoint
    for begin in range(0, V, BV):
        d = begin + tl.arange(0, BV)
        if n + 1 < N:
            state = load_state(states_ptr, chunk + 1, c, d, K, V).to(WIDE)
        else:
            state = load_state(last_ptr, place, c, d, K, V).to(WIDE)
        passes += tl.sum(state * load_state(after_ptr, chunk, c, d, K, V).to(WIDE), 1)
    behind = tl.zeros((BK,), WIDE)  # decays of the pieces after this one
    for turn in range(L // S):
        i = L // S - 1 - turn
        t = n * L + i * S + row
        tile = slopes_ptr + (chunk * L + i * S) * L
        q, a, prefix, suffix = piece(q_ptr, a_ptr, forgets_ptr, b, h, g, t, c, T, H, G, K, CONSTANT, WIDE)
        k = load_rows(k_ptr, b, g, t, c, T, G, K, t < T).to(WIDE)
        dq, dk = read_edges(
            v_ptr, dy_ptr, states_ptr, after_ptr, chunk, b, h, t, c, T, H, K, V, S, BK, BV, DOT, WIDE, PRECISION
        )  # fmt: skip
        dk = dk * tl.exp(suffix + behind[None, :])
        others = tl.zeros((S, BK), WIDE)
        between = tl.zeros((BK,), WIDE)
        for back in range(i):
            j = i - 1 - back
            k_j, a_j, _prefix_j, suffix_j = piece(
                k_ptr, a_ptr, forgets_ptr, b, h, g, n * L + j * S + row, c, T, H, G, K, CONSTANT, WIDE
            )  # fmt: skip
            slopes = tl.load(tile + row[:, None] * L + j * S + row[None, :]).to(DOT)
            writes = (k_j * tl.exp(suffix_j + between[None, :])).to(DOT)
            others += tl.dot(slopes, writes, input_precision=PRECISION)
            between += tl.sum(a_j, 0)
        dq = (dq * tl.exp(between)[None, :] + others) * tl.exp(prefix)
        others = tl.zeros((S, BK), WIDE)
        between = tl.zeros((BK,), WIDE)
        for u in range(i + 1, L // S):
            q_u, a_u, prefix_u, _suffix_u = piece(
                q_ptr, a_ptr, forgets_ptr, b, h, g, n * L + u * S + row, c, T, H, G, K, CONSTANT, WIDE
            )  # fmt: skip
            slopes = tl.load(slopes_ptr + (chunk * L + u * S + row[:, None]) * L + i * S + row[None, :]).to(DOT)
            reads = (q_u * tl.exp(prefix_u + between[None, :])).to(DOT)
            others += tl.dot(tl.trans(slopes), reads, input_precision=PRECISION)
            between += tl.sum(a_u, 0)
        dk += others * tl.exp(suffix)
        own_q, own_k = own_pairs(q, k, a, tile + i * S, row, S, L, BK, WIDE)
        dq += own_q
        dk += own_k
        ends = q * dq - k * dk
        da = tl.where(a == float("-inf"), 0.0, passes[None, :] + tl.cumsum(ends, 0, reverse=True))
        passes += tl.sum(ends, 0)
        behind += tl.sum(a, 0)
        store_rows(dq_ptr, dq, b, h, t, c, T, H, K, t < T)
        store_rows(dk_ptr, dk, b, h, t, c, T, H, K, t < T)
        store_rows(da_ptr, da, b, h, t, c, T, H, K, t < T)
