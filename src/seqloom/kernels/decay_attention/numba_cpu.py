"""Blocks of four steps.

A block's outputs are what its own steps give each other (a 4 x 4 matrix of scores) and what the state before it gives;
the state is then advanced by all four at once, so that it is loaded and stored once in four steps. Decays
enter as products of factors <= 1, never as quotients: nothing overflows, and a factor 0 forgets.

In a chunked form by matrix products (torch) the same work took about twice the time at (2, 2048, 4 heads, 64, 64).
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import exp, run
from seqloom.kernels.decay_attention import gathered, mismatch, starts, summed, widest

STEPS = 4  # of a block; the loops below are written out for four
CHUNK = 16  # blocks after which the backward keeps a state
KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FAST = {"contract", "reassoc", "nsz"}  # sums may be reordered; NaN and infinity keep their meaning


def refuses(*inputs: Any) -> str | None:
    """Serves the attention (q, ...) and its adjoint (dy, dlast, q, ...)."""
    *given, q, k, v, log_decay, s, segments = inputs
    if any(value.dtype not in KINDS for value in (*given, q, k, v, log_decay, s)):
        return "an input is neither real nor floating"
    if given and (given[0].shape != v.shape or given[1].shape != s.shape):
        return "the adjoints' shapes are not those of v and s"
    return mismatch(q, k, v, log_decay, s, segments)


def forward(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    wide = widest(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    like = torch.empty(0, dtype=wide)
    y_BTHV, last_BHKV = fresh(v_BTHV.shape, like), fresh(s_BHKV.shape, like)
    given = [_array(value, wide) for value in (q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)]
    work = v_BTHV.numel() * q_BTGK.shape[3]
    run(_forward, _forward_parallel, work, *given, _forgets(segments_BT), y_BTHV.numpy(), last_BHKV.numpy())
    return y_BTHV.to(v_BTHV.dtype), last_BHKV.to(torch.promote_types(s_BHKV.dtype, torch.float32))


def backward(
    dy_BTHV: Tensor,
    dlast_BHKV: Tensor,
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (dy_BTHV, dlast_BHKV, q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    wide, (B, T, H, V), K = widest(*tensors[2:]), v_BTHV.shape, q_BTGK.shape[3]
    shapes = ((B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, *log_decay_BTHC.shape[2:]), (B, H, K, V))
    made = [fresh(shape, torch.empty(0, dtype=wide)) for shape in shapes]
    given = [_array(value, wide) for value in tensors]
    work = v_BTHV.numel() * K
    run(_backward, _backward_parallel, work, *given, _forgets(segments_BT), *(value.numpy() for value in made))
    dq, dk, dv, ddecay, ds = made
    results = (gathered(dq, q_BTGK), gathered(dk, k_BTGK), dv, summed(ddecay, log_decay_BTHC), ds)
    dq, dk, dv, ddecay, ds = (value.to(like.dtype) for value, like in zip(results, tensors[2:], strict=True))
    return dq, dk, dv, ddecay, ds


FORWARDS = {"decay_attention": forward, "decay_attention_backward": backward}


def _array(value: Tensor, dtype: torch.dtype) -> np.ndarray:
    return value.detach().to(dtype).contiguous().numpy()


def _forgets(segments_BT: Tensor | None) -> np.ndarray:
    """Where the past is forgotten; without columns where it never is."""
    forgets_BT = starts(segments_BT)
    return np.zeros((0, 0), np.bool_) if forgets_BT is None else forgets_BT.contiguous().numpy()


@numba.njit(cache=True, nogil=True)
def _fill(x, b, h, begin, rows):
    """Copy the steps of a block; those beyond the end are zero."""
    for i in range(STEPS):
        if begin + i < x.shape[1]:
            for c in range(x.shape[3]):
                rows[i, c] = x[b, begin + i, h, c]
        else:
            rows[i] = 0


@numba.njit(cache=True, nogil=True)
def _fill_decays(log_decay, forgets, b, h, place, rows):
    """The decays of a block, one a key channel; steps beyond the end hold the state."""
    begin, T = place
    each, C = (0 if log_decay.shape[:2] == (1, 1) else 1), log_decay.shape[3]
    for i in range(STEPS):
        t = begin + i
        if t >= T:
            rows[i] = 1
        elif forgets.size and forgets[b, t]:
            rows[i] = 0
        elif C == 1:
            rows[i] = exp(log_decay[each * b, each * t, h, 0])
        else:
            for c in range(C):
                rows[i, c] = exp(log_decay[each * b, each * t, h, c])


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _weigh(q, k, decay, total, reads, writes, scores):
    """What a block reads of the state before it, writes to the state after it, and gives to itself."""
    total[:] = 1
    for t in range(STEPS):
        for c in range(total.size):
            total[c] *= decay[t, c]
            reads[t, c] = q[t, c] * total[c]
    for s in range(STEPS):
        row = writes[s]
        row[:] = k[s]
        for t in range(s, STEPS):
            score = scores[t, s] * 0
            for c in range(total.size):
                if t > s:
                    row[c] *= decay[t, c]
                score += q[t, c] * row[c]
            scores[t, s] = score


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _read_and_write(state, total, reads, writes, v, y):
    """y_t += reads_t^T S, then S = diag(total) S + sum_t writes_t v_t^T."""
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    for c in range(state.shape[0]):  # one row at a time: two or four, or eight steps, were slower
        row, d = state[c], total[c]
        q0, q1, q2, q3 = reads[0, c], reads[1, c], reads[2, c], reads[3, c]
        k0, k1, k2, k3 = writes[0, c], writes[1, c], writes[2, c], writes[3, c]
        for j in range(state.shape[1]):
            x = row[j]
            y0[j] += q0 * x
            y1[j] += q1 * x
            y2[j] += q2 * x
            y3[j] += q3 * x
            row[j] = d * x + k0 * v0[j] + k1 * v1[j] + k2 * v2[j] + k3 * v3[j]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _ask_and_write(state, total, writes, v, dy, asked):
    """asked_t = S dy_t, then S = diag(total) S + sum_t writes_t v_t^T."""
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    g0, g1, g2, g3 = dy[0], dy[1], dy[2], dy[3]
    for c in range(state.shape[0]):
        row, d = state[c], total[c]
        k0, k1, k2, k3 = writes[0, c], writes[1, c], writes[2, c], writes[3, c]
        a0 = a1 = a2 = a3 = d * 0
        for j in range(state.shape[1]):
            x = row[j]
            a0 += x * g0[j]
            a1 += x * g1[j]
            a2 += x * g2[j]
            a3 += x * g3[j]
            row[j] = d * x + k0 * v0[j] + k1 * v1[j] + k2 * v2[j] + k3 * v3[j]
        asked[0, c], asked[1, c], asked[2, c], asked[3, c] = a0, a1, a2, a3


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _mix(weights, x, y, transposed):
    """y_t = sum_s<=t weights_ts x_s, or y_s = sum_t>=s weights_ts x_t."""
    y[:] = 0
    for t in range(STEPS):
        for s in range(t + 1):
            to, of = (s, t) if transposed else (t, s)
            for c in range(x.shape[1]):
                y[to, c] += weights[t, s] * x[of, c]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _agree(dy, v, slopes):
    """Gradients of the scores: dy_t . v_s."""
    for t in range(STEPS):
        for s in range(t + 1):
            total = slopes[t, s] * 0
            for j in range(v.shape[1]):
                total += dy[t, j] * v[s, j]
            slopes[t, s] = total


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _through_scores(slopes, x, decay, y, transposed):
    """y_t += sum_s<=t slopes_ts w_ts x_s, or y_s += sum_t>=s slopes_ts w_ts x_t; w_ts = decay_{s+1} ... decay_t."""
    for c in range(x.shape[1]):
        for s in range(STEPS):
            weight = decay[0, c] * 0 + 1
            for t in range(s, STEPS):
                if t > s:
                    weight *= decay[t, c]
                if transposed:
                    y[s, c] += slopes[t, s] * weight * x[t, c]
                else:
                    y[t, c] += slopes[t, s] * weight * x[s, c]


@numba.njit(cache=True, nogil=True)
def _scratch(like):
    """A block of key rows and one of value rows."""
    return np.zeros((STEPS, like.shape[0]), like.dtype), np.zeros((STEPS, like.shape[1]), like.dtype)


def _forward_body(q, k, v, log_decay, s, forgets, y, last):
    (B, T, H, _), G = v.shape, q.shape[2]
    for piece in numba.prange(B * H):
        b, h = piece // H, piece % H
        group, state, total = h // (H // G), s[b, h].copy(), np.ones_like(s[b, h, :, 0])
        (q_rows, v_rows), (k_rows, y_rows) = _scratch(state), _scratch(state)
        (reads, _), (writes, _), (decay, _) = _scratch(state), _scratch(state), _scratch(state)
        scores = np.zeros((STEPS, STEPS), s.dtype)
        for begin in range(0, T, STEPS):
            _fill(q, b, group, begin, q_rows)
            _fill(k, b, group, begin, k_rows)
            _fill(v, b, h, begin, v_rows)
            _fill_decays(log_decay, forgets, b, h, (begin, T), decay)
            _weigh(q_rows, k_rows, decay, total, reads, writes, scores)
            _mix(scores, v_rows, y_rows, False)
            _read_and_write(state, total, reads, writes, v_rows, y_rows)
            _store(y_rows, b, h, begin, y)
        last[b, h] = state


@numba.njit(cache=True, nogil=True)
def _store(rows, b, h, begin, x):
    for i in range(min(STEPS, x.shape[1] - begin)):
        for c in range(x.shape[3]):
            x[b, begin + i, h, c] = rows[i, c]


@numba.njit(cache=True, nogil=True)
def _queries(q, k, v, log_decay, forgets, at, dy, state, dq, ends):
    """Dq from the states, which run forwards; ``ends`` keeps every state after CHUNK blocks."""
    T, K, (b, h, group) = v.shape[1], q.shape[3], at
    (q_rows, v_rows), (k_rows, dy_rows), (dq_rows, _) = _scratch(state), _scratch(state), _scratch(state)
    (reads, _), (writes, _), (decay, _) = _scratch(state), _scratch(state), _scratch(state)
    scores, total = np.zeros((STEPS, STEPS), state.dtype), np.ones_like(state[:, 0])
    for begin in range(0, T, STEPS):
        _fill(q, b, group, begin, q_rows)
        _fill(k, b, group, begin, k_rows)
        _fill(v, b, h, begin, v_rows)
        _fill(dy, b, h, begin, dy_rows)
        _fill_decays(log_decay, forgets, b, h, (begin, T), decay)
        _weigh(q_rows, k_rows, decay, total, reads, writes, scores)
        _ask_and_write(state, total, writes, v_rows, dy_rows, dq_rows)
        past = np.ones_like(total)
        for t in range(STEPS):
            for c in range(K):
                past[c] *= decay[t, c]
                dq_rows[t, c] *= past[c]
        _agree(dy_rows, v_rows, scores)
        _through_scores(scores, k_rows, decay, dq_rows, False)
        _store(dq_rows, b, h, begin, dq)
        number = begin // STEPS + 1
        if number % CHUNK == 0 or begin + STEPS >= T:
            ends[(number - 1) // CHUNK] = state


@numba.njit(cache=True, nogil=True)
def _keys(q, k, v, log_decay, forgets, at, dy, after, dq, ends, dk, dv, ddecay):
    """dk, dv and the decays' gradients from the states' adjoints, which run backwards."""
    T, K, (b, h, group) = v.shape[1], q.shape[3], at
    (q_rows, v_rows), (k_rows, dy_rows), (dk_rows, dv_rows) = _scratch(after), _scratch(after), _scratch(after)
    (reads, _), (writes, _), (decay, _), (dq_rows, _) = (
        _scratch(after),
        _scratch(after),
        _scratch(after),
        _scratch(after),
    )
    scores, total, spans = np.zeros((STEPS, STEPS), after.dtype), np.ones_like(after[:, 0]), np.zeros_like(after[:, 0])
    blocks = (T + STEPS - 1) // STEPS
    for number in range(blocks, 0, -1):
        begin = (number - 1) * STEPS
        if number % CHUNK == 0 or number == blocks:
            _contract(ends[(number - 1) // CHUNK], after, spans)
        _fill(q, b, group, begin, q_rows)
        _fill(k, b, group, begin, k_rows)
        _fill(v, b, h, begin, v_rows)
        _fill(dy, b, h, begin, dy_rows)
        _fill(dq, b, h, begin, dq_rows)
        _fill_decays(log_decay, forgets, b, h, (begin, T), decay)
        _weigh(q_rows, k_rows, decay, total, reads, writes, scores)
        _mix(scores, dy_rows, dv_rows, True)
        _read_keys(after, writes, dv_rows)
        _ask_and_write(after, total, reads, dy_rows, v_rows, dk_rows)
        rest = np.ones_like(total)
        for t in range(STEPS - 1, -1, -1):
            for c in range(K):
                dk_rows[t, c] *= rest[c]
                rest[c] *= decay[t, c]
        _agree(dy_rows, v_rows, scores)
        _through_scores(scores, q_rows, decay, dk_rows, True)
        _store(dk_rows, b, h, begin, dk)
        _store(dv_rows, b, h, begin, dv)
        _fill_slopes((q_rows, dq_rows, k_rows, dk_rows), spans, forgets, (b, h, begin), ddecay)


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _read_keys(after, writes, dv):
    """dv_t += writes_t^T G."""
    y0, y1, y2, y3 = dv[0], dv[1], dv[2], dv[3]
    for c in range(after.shape[0]):
        row, k0, k1, k2, k3 = after[c], writes[0, c], writes[1, c], writes[2, c], writes[3, c]
        for j in range(after.shape[1]):
            x = row[j]
            y0[j] += k0 * x
            y1[j] += k1 * x
            y2[j] += k2 * x
            y3[j] += k3 * x


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _contract(state, after, spans):
    """What passes a position in every key channel: sum_v S G, the gradient of a decay of 1 that stood there."""
    for c in range(state.shape[0]):
        total = spans[c] * 0
        for j in range(state.shape[1]):
            total += state[c, j] * after[c, j]
        spans[c] = total


@numba.njit(cache=True, nogil=True)
def _fill_slopes(rows, spans, forgets, at, ddecay):
    """The decays' gradients: what passes a step is what passes the next, and what begins or ends between them.

    Begun again from the states at every chunk's end, so that float32 does not gather errors along the row.
    """
    (q, dq, k, dk), (b, h, begin), C = rows, at, ddecay.shape[3]
    for i in range(min(STEPS, ddecay.shape[1] - begin) - 1, -1, -1):
        t = begin + i
        total = spans[0] * 0
        for c in range(spans.size):
            spans[c] += q[i, c] * dq[i, c] - k[i, c] * dk[i, c]
            total += spans[c]
        for c in range(C):
            slope = total if C == 1 and spans.size != 1 else spans[c]
            ddecay[b, t, h, c] = 0 if forgets.size and forgets[b, t] else slope


def _backward_body(dy, dlast, q, k, v, log_decay, s, forgets, dq, dk, dv, ddecay, ds):
    (B, T, H, V), (G, K) = v.shape, q.shape[2:]
    for piece in numba.prange(B * H):
        b, h = piece // H, piece % H
        at, state, after = (b, h, h // (H // G)), s[b, h].copy(), dlast[b, h].copy()
        ends = np.empty((T // (STEPS * CHUNK) + 1, K, V), s.dtype)
        _queries(q, k, v, log_decay, forgets, at, dy, state, dq, ends)
        _keys(q, k, v, log_decay, forgets, at, dy, after, dq, ends, dk, dv, ddecay)
        ds[b, h] = after


_forward = numba.njit(cache=True, nogil=True)(_forward_body)
_forward_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_forward_body)
_backward = numba.njit(cache=True, nogil=True)(_backward_body)
_backward_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_backward_body)
