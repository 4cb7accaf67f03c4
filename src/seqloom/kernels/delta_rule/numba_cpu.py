"""Step by step, up to 64 value channels of a head at a time: their memory stays in the nearest cache.

The columns of the memory do not know of each other, so that a panel of them goes through time alone:

    r = e^g S^T k      u = beta (v - r)      S <- e^g S + k u^T      y = S^T q

Two passes over the panel a step, four rows of it at once. On a processor this beats the chunked form, whose triangles
and products of chunks cost more than they save where there is no unit that does nothing but products.

The backward pass keeps the memory of every 32nd step, computes those between again, and takes them in reverse order:

    dS <- dS + q dy^T      r' = dS^T k      dv = beta r'      dk = dS u - e^g S dv      dS <- e^g (dS - k dv^T)

Shapes: B batch, T time, H heads, K key, V value, P panels.
"""

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import flat, run
from seqloom.kernels.delta_rule import starts, state_dtype, unfit

ROWS, SPAN = 4, 32
LANES = {width: (False,) * width for width in (16, 32, 64)}
"""By the channels of a panel a tuple as long: its length is known when a loop is compiled, a number would not be."""


def refuses(*inputs: Tensor | None) -> str | None:
    """Serves the rule (q, k, v, decay, beta, state, segments, lengths) and its adjoint (dy, dlast, ...)."""
    wrong = unfit(*inputs)
    if wrong is not None:
        return wrong
    floats = [value for value in inputs[:-2] if value is not None]
    if floats[0].dtype not in (torch.float32, torch.float64) or any(each.dtype != floats[0].dtype for each in floats):
        return "the inputs are not all float32 or all float64"
    if any(not each.numel() for each in floats):
        return "no rows, steps, heads or channels"
    return None


def forward(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    (B, T, H, K), V = q_BTHK.shape, v_BTHV.shape[3]
    decay_BTH, length_B = _factors(log_decay_BTH, segments_BT, lengths_B)
    lanes = _lanes(V, 32)
    y_BTHV, last_BHPKW = fresh(v_BTHV.shape, v_BTHV), _panels(s_BHKV, len(lanes))
    values = (q_BTHK, k_BTHK, v_BTHV, decay_BTH, beta_BTH, length_B, y_BTHV, last_BHPKW)
    run(_loop, _loop_parallel, q_BTHK.numel() * V, *(flat(value) for value in values), (B, T, H, K, V), lanes)
    return y_BTHV, _whole(last_BHPKW, s_BHKV).to(state_dtype(s_BHKV))


def backward(
    dy_BTHV: Tensor,
    dlast_BHKV: Tensor,
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    (B, T, H, K), V = q_BTHK.shape, v_BTHV.shape[3]
    decay_BTH, length_B = _factors(log_decay_BTH, segments_BT, lengths_B)
    likes = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH)
    grads = [torch.zeros(like.shape, dtype=like.dtype) for like in likes]
    lanes = _lanes(V, 64)
    states_BHPKW, ds_BHPKW = _panels(s_BHKV, len(lanes)), _panels(dlast_BHKV, len(lanes))
    given = (dy_BTHV, q_BTHK, k_BTHK, v_BTHV, decay_BTH, beta_BTH, length_B, states_BHPKW, *grads, ds_BHPKW)
    run(_adjoint, _adjoint_parallel, q_BTHK.numel() * V, *(flat(value) for value in given), (B, T, H, K, V), lanes)
    return *grads, _whole(ds_BHPKW, s_BHKV)  # type: ignore[return-value]


FORWARDS = {"delta_rule": forward, "delta_rule_backward": backward}


def _factors(log_decay: Tensor, segments_BT: Tensor | None, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Decays, 0 where a segment starts, and the columns of each row that count."""
    B, T = log_decay.shape[:2]
    decay_BTH = log_decay.exp()
    if segments_BT is not None:
        decay_BTH = decay_BTH.masked_fill(starts(segments_BT)[..., None], 0)
    return decay_BTH, torch.full((B,), T) if lengths_B is None else lengths_B.clamp(0, T).long()


def _lanes(channels: int, most: int) -> tuple[bool, ...]:
    """The narrowest panel that holds all channels, or the widest one that pays."""
    return next(lanes for width, lanes in LANES.items() if width >= min(channels, most))


def _panels(s_BHKV: Tensor, wide: int) -> Tensor:
    """(B, H, P, K', W) of its own memory: both axes filled up with zeros, which stay zeros."""
    K, V = s_BHKV.shape[2:]
    s_BHPKW = pad(s_BHKV, (0, -V % wide, 0, -K % ROWS)).unflatten(3, (-1, wide)).transpose(2, 3)
    return s_BHPKW.clone(memory_format=torch.contiguous_format)


def _whole(s_BHPKW: Tensor, like_BHKV: Tensor) -> Tensor:
    """The inverse."""
    K, V = like_BHKV.shape[2:]
    return s_BHPKW.transpose(2, 3).flatten(3)[:, :, :K, :V].contiguous()


inner = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@inner
def _take(source, at, target, count, lanes):
    """So many numbers, most often a whole panel."""
    wide = len(lanes)
    given = source[at : at + count]
    if count == wide:
        for j in range(wide):
            target[j] = given[j]
    else:
        for j in range(count):
            target[j] = given[j]


@inner
def _read(k, s, r, lanes):
    """What a key reads, r = S^T k."""
    wide = len(lanes)
    for j in range(wide):
        r[j] = 0
    for i in range(0, len(k), ROWS):
        a0, a1, a2, a3 = k[i], k[i + 1], k[i + 2], k[i + 3]
        rows = s[i * wide : (i + ROWS) * wide]
        for j in range(wide):
            r[j] += a0 * rows[j] + a1 * rows[wide + j] + a2 * rows[2 * wide + j] + a3 * rows[3 * wide + j]


@inner
def _write(k, u, decay, s, q, y, lanes):
    """S <- decay S + k u^T in its place, and what the query reads of it, y = S^T q."""
    wide = len(lanes)
    for j in range(wide):
        y[j] = 0
    for i in range(0, len(k), ROWS):
        a0, a1, a2, a3 = k[i], k[i + 1], k[i + 2], k[i + 3]
        b0, b1, b2, b3 = q[i], q[i + 1], q[i + 2], q[i + 3]
        rows = s[i * wide : (i + ROWS) * wide]
        for j in range(wide):
            n0 = decay * rows[j] + a0 * u[j]
            n1 = decay * rows[wide + j] + a1 * u[j]
            n2 = decay * rows[2 * wide + j] + a2 * u[j]
            n3 = decay * rows[3 * wide + j] + a3 * u[j]
            rows[j], rows[wide + j], rows[2 * wide + j], rows[3 * wide + j] = n0, n1, n2, n3
            y[j] += b0 * n0 + b1 * n1 + b2 * n2 + b3 * n3


@inner
def _advance(k, u, decay, before, after, lanes):
    """The same into other memory, without a query; in its place no vectors could be made of this."""
    wide = len(lanes)
    for i in range(len(k)):
        a, was, now = k[i], before[i * wide : (i + 1) * wide], after[i * wide : (i + 1) * wide]
        for j in range(wide):
            now[j] = decay * was[j] + a * u[j]


@inner
def _retreat(k, u, passed, dy, decay, before, ds, dq, dk, of_decay, lanes):
    """Back through one write: dq but for its own key's part, dk, the decay's gradient, and ds before the step.

    ``passed`` is decay dv, so that decay (ds - k dv^T) is decay ds - k passed^T; times S it is the decay's gradient.
    """
    wide = len(lanes)
    for j in range(wide):
        of_decay[j] = 0
    for i in range(0, len(k), 2):
        a, b = k[i], k[i + 1]
        q0, q1, k0, k1 = a * 0, a * 0, a * 0, a * 0
        was, rows = before[i * wide : (i + 2) * wide], ds[i * wide : (i + 2) * wide]
        for j in range(wide):
            s0, s1, d0, d1 = was[j], was[wide + j], rows[j], rows[wide + j]
            q0 += s0 * dy[j]
            q1 += s1 * dy[j]
            k0 += d0 * u[j] - s0 * passed[j]
            k1 += d1 * u[j] - s1 * passed[j]
            e0, e1 = decay * d0 - a * passed[j], decay * d1 - b * passed[j]
            rows[j], rows[wide + j] = e0, e1
            of_decay[j] += e0 * s0 + e1 * s1
        dq[i], dq[i + 1], dk[i], dk[i + 1] = decay * q0, decay * q1, k0, k1


@inner
def _gather(dq, dk, told, key, dqs, dks):
    """Add what a panel says of a query and a key."""
    for i in range(len(dqs)):
        dqs[i] += dq[i] + told * key[i]
        dks[i] += dk[i]


@inner
def _error(value, read, decay, beta, error, written, lanes):
    """What the key reads wrongly, and what is written of it."""
    wide = len(lanes)
    for j in range(wide):
        error[j] = value[j] - decay * read[j]
        written[j] = beta * error[j]


def _loop_body(q, k, v, decays, betas, lengths, y, states, sizes, lanes):
    wide = len(lanes)
    B, T, H, K, V = sizes
    panels, high = (V + wide - 1) // wide, (K + ROWS - 1) // ROWS * ROWS
    for piece in numba.prange(B * H * panels):
        b, h, p = piece // panels // H, piece // panels % H, piece % panels
        width = min(wide, V - p * wide)
        key, query, read = np.zeros(high, q.dtype), np.zeros(high, q.dtype), np.zeros(wide, q.dtype)
        error, written, value = np.zeros(wide, q.dtype), np.zeros(wide, q.dtype), np.zeros(wide, q.dtype)
        s = states[piece * high * wide : (piece + 1) * high * wide]
        for t in range(T):
            at = (b * T + t) * H + h
            out = y[at * V + p * wide : at * V + p * wide + width]
            if t >= lengths[b]:
                out[:] = 0
                continue
            _take(k, at * K, key, K, lanes)
            _take(q, at * K, query, K, lanes)
            _take(v, at * V + p * wide, value, width, lanes)
            _read(key, s, read, lanes)
            _error(value, read, decays[at], betas[at], error, written, lanes)
            _write(key, written, decays[at], s, query, read, lanes)
            _take(read, 0, out, width, lanes)


@inner
def _record(k, v, decays, betas, s, kept, errors, steps, place, sizes, lanes):
    """Forward: the memory of every 32nd step, and what each step found wrong."""
    wide = len(lanes)
    (b, h, p), (_, T, H, K, V) = place, sizes
    size = len(s)
    key, value = np.zeros(size // wide, s.dtype), np.zeros(wide, s.dtype)
    read, written = np.zeros(wide, s.dtype), np.zeros(wide, s.dtype)
    for t in range(steps):
        at = (b * T + t) * H + h
        if t % SPAN == 0:
            kept[t // SPAN * size : (t // SPAN + 1) * size] = s
        _take(k, at * K, key, K, lanes)
        _take(v, at * V + p * wide, value, min(wide, V - p * wide), lanes)
        _read(key, s, read, lanes)
        _error(value, read, decays[at], betas[at], errors[t * wide : (t + 1) * wide], written, lanes)
        _write(key, written, decays[at], s, key, read, lanes)


@inner
def _replay(k, decays, betas, errors, span, first, stop, place, sizes, lanes):
    """The memory before each step of a span, the first of which is there."""
    wide = len(lanes)
    (b, h, _), (_, T, H, K, _) = place, sizes
    size = len(span) // SPAN
    key, written = np.zeros(size // wide, span.dtype), np.zeros(wide, span.dtype)
    for t in range(first, stop - 1):
        at, n, error = (b * T + t) * H + h, (t - first) * size, errors[t * wide : (t + 1) * wide]
        _take(k, at * K, key, K, lanes)
        for j in range(wide):
            written[j] = betas[at] * error[j]
        _advance(key, written, decays[at], span[n : n + size], span[n + size : n + 2 * size], lanes)


@inner
def _reverse(given, errors, span, ds, grads, first, stop, place, sizes, lanes):
    """A span backwards; adds to the gradients of queries, keys, decays and betas, and sets that of the values."""
    wide = len(lanes)
    (dy, q, k, decays, betas), (dqs, dks, dvs, ddecays, dbetas) = given, grads
    (b, h, p), (_, T, H, K, V) = place, sizes
    size, width = len(ds), min(wide, V - p * wide)
    key, query = np.zeros(size // wide, ds.dtype), np.zeros(size // wide, ds.dtype)
    dk, dq = np.zeros(size // wide, ds.dtype), np.zeros(size // wide, ds.dtype)
    grad, read, dv = np.zeros(wide, ds.dtype), np.zeros(wide, ds.dtype), np.zeros(wide, ds.dtype)
    written, passed = np.zeros(wide, ds.dtype), np.zeros(wide, ds.dtype)
    for t in range(stop - 1, first - 1, -1):
        at, n, error = (b * T + t) * H + h, (t - first) * size, errors[t * wide : (t + 1) * wide]
        _take(k, at * K, key, K, lanes)
        _take(q, at * K, query, K, lanes)
        _take(dy, at * V + p * wide, grad, width, lanes)
        decay, beta = decays[at], betas[at]
        _write(query, grad, decay * 0 + 1, ds, key, read, lanes)
        of_beta, told, of_decay = beta * 0, beta * 0, beta * 0
        for j in range(wide):
            of_beta += read[j] * error[j]
            dv[j], written[j] = beta * read[j], beta * error[j]
            passed[j] = decay * dv[j]
            told += written[j] * grad[j]
        _retreat(key, written, passed, grad, decay, span[n : n + size], ds, dq, dk, read, lanes)
        for j in range(wide):
            of_decay += read[j]
        ddecays[at] += of_decay
        dbetas[at] += of_beta
        _gather(dq, dk, told, key, dqs[at * K : (at + 1) * K], dks[at * K : (at + 1) * K])
        _take(dv, 0, dvs[at * V + p * wide : at * V + p * wide + width], width, lanes)


def _adjoint_body(dy, q, k, v, decays, betas, lengths, states, dqs, dks, dvs, ddecays, dbetas, dstates, sizes, lanes):
    wide = len(lanes)
    B, _, H, K, V = sizes
    panels, size = (V + wide - 1) // wide, (K + ROWS - 1) // ROWS * ROWS * wide
    given, grads = (dy, q, k, decays, betas), (dqs, dks, dvs, ddecays, dbetas)
    for piece in numba.prange(B * H):  # panels add to the same gradients of keys and queries
        steps = lengths[piece // H]
        spans = (steps + SPAN - 1) // SPAN
        errors, span = np.zeros(steps * wide, q.dtype), np.zeros(SPAN * size, q.dtype)
        kept = np.zeros(spans * size, q.dtype)
        for p in range(panels):
            place, at = (piece // H, piece % H, p), (piece * panels + p) * size
            _record(k, v, decays, betas, states[at : at + size], kept, errors, steps, place, sizes, lanes)
            for back in range(spans):
                first = (spans - 1 - back) * SPAN
                stop = min(first + SPAN, steps)
                span[:size] = kept[first // SPAN * size : (first // SPAN + 1) * size]
                _replay(k, decays, betas, errors, span, first, stop, place, sizes, lanes)
                _reverse(given, errors, span, dstates[at : at + size], grads, first, stop, place, sizes, lanes)


_options = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
_loop, _loop_parallel = numba.njit(**_options)(_loop_body), numba.njit(parallel=True, **_options)(_loop_body)
_adjoint, _adjoint_parallel = (
    numba.njit(**_options)(_adjoint_body),
    numba.njit(parallel=True, **_options)(_adjoint_body),
)
