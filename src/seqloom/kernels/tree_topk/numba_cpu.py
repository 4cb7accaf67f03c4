"""One list after the other, in the cache: a round scores the halves where they lie and keeps the best by selection."""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from seqloom.kernels._numba import run
from seqloom.kernels.tree_topk import check_offset, mismatch, shapes


def refuses(*inputs: Any) -> str | None:
    q, k = inputs[:2]
    wrong = mismatch(*inputs)
    if wrong is not None:
        return wrong
    if 0 in q.shape or 0 in k.shape:
        return "nothing to search"
    return None if q.dtype == k.dtype and q.dtype in (torch.float32, torch.float64) else f"no {q.dtype} in numpy"


def forward(
    q: Tensor, k: Tensor, offset_B: Tensor, beam: int, queries: int = 1, keys: int = 1, stride: int = 1
) -> Tensor:
    check_offset(offset_B)
    found = shapes(q, k, offset_B, beam, queries, keys, stride).fill_(-1)
    q_BGRTK = q.detach().unflatten(1, (k.shape[1], -1)).contiguous()
    arrays = (q_BGRTK.numpy(), k.detach().contiguous().numpy(), offset_B.numpy(), found.numpy())
    run(_all_serial, _all_parallel, found.numel() * q.shape[3], *arrays, queries, keys, stride)
    return found


FORWARDS = {"tree_topk": forward}


def _all(q, k, offset, found, queries, keys, stride):
    B, G, Q = found.shape[:3]
    for job in numba.prange(B * G * Q):
        b, g, c = job // (G * Q), job // Q % G, job % Q
        _one(q[b, g], k[b, g], offset[b], found[b, g, c], c, queries, keys, stride)


@numba.njit(cache=True, nogil=True)
def _one(q, k, offset, found, c, queries, keys, stride):
    T = q.shape[1]
    S, beam = k.shape[0], found.shape[0]
    last = min((c + 1) * queries, T) - 1
    asked = (last - c * queries) // stride + 1
    end = min(offset + last, S - 1)
    blocks = end // keys + 1
    parts = min(beam, blocks)
    start, stop = np.empty(2 * beam, np.int64), np.empty(2 * beam, np.int64)
    begin, finish = np.empty(2 * beam, np.int64), np.empty(2 * beam, np.int64)
    score, pool = np.empty(2 * beam, q.dtype), np.empty(2 * beam, q.dtype)
    longest = 0
    for i in range(parts):
        start[i], stop[i] = i * blocks // parts, (i + 1) * blocks // parts
        longest = max(longest, stop[i] - start[i])
    while longest > 1:
        n = 0
        for i in range(parts):
            middle = start[i] + (stop[i] - start[i] + 1) // 2
            begin[n], finish[n] = start[i], middle
            n += 1
            if middle < stop[i]:
                begin[n], finish[n] = middle, stop[i]
                n += 1
        for i in range(n):
            where = min((begin[i] + finish[i]) * keys // 2, end)
            score[i] = _score(q, k[where], last, asked, stride, where - offset)
            pool[i] = score[i]
        parts = _keep(score, pool, n, min(beam, n), begin, finish, start, stop)
        longest = 0
        for i in range(parts):
            longest = max(longest, stop[i] - start[i])
    for i in range(parts):
        found[i] = start[i]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _score(q, key, last, asked, stride, first):
    """Largest product with a query from row ``first`` on; four queries at a time share what is read of the key."""
    best = -np.inf
    for r in range(q.shape[0]):
        a = 0
        while a + 3 < asked and last - (a + 3) * stride >= first:
            t = last - a * stride
            w, x, y, z = q[r, t], q[r, t - stride], q[r, t - 2 * stride], q[r, t - 3 * stride]
            s0 = s1 = s2 = s3 = q.dtype.type(0)
            for i in range(len(key)):
                s0 += w[i] * key[i]
                s1 += x[i] * key[i]
                s2 += y[i] * key[i]
                s3 += z[i] * key[i]
            best = max(best, max(max(s0, s1), max(s2, s3)))
            a += 4
        while a < asked and last - a * stride >= first:
            row, total = q[r, last - a * stride], q.dtype.type(0)
            for i in range(len(key)):
                total += row[i] * key[i]
            best = max(best, total)
            a += 1
    return best


@numba.njit(cache=True, nogil=True)
def _keep(score, pool, n, wanted, begin, finish, start, stop):
    """The ``wanted`` largest in their order; of equal ones at the edge, the first."""
    edge = _select(pool, n, wanted)
    above = 0
    for i in range(n):
        if score[i] > edge:
            above += 1
    equal, kept = wanted - above, 0
    for i in range(n):
        if score[i] > edge or (score[i] == edge and equal > 0):
            if score[i] == edge:
                equal -= 1
            start[kept], stop[kept] = begin[i], finish[i]
            kept += 1
    return kept


@numba.njit(cache=True, nogil=True)
def _select(x, n, rank):
    """The rank-th largest of the first n (quickselect); their order is lost."""
    low, high, want = 0, n - 1, rank - 1
    while low < high:
        pivot = x[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while x[i] > pivot:
                i += 1
            while x[j] < pivot:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        if want <= j:
            high = j
        elif want >= i:
            low = i
        else:
            break
    return x[want]


_all_serial = numba.njit(cache=True, nogil=True)(_all)
_all_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_all)
