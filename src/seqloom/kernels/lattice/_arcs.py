"""The lattice's loops over the arcs that are there: rows scaled to the sum 1, and in logs where scaling would lose one.

A state whose share of a step falls below float64's range is lost for a scaled row, though it may be the only one that
leads to the end; such a row is done again in logs. The adjoint lets the posteriors flow back along the arcs, each
state's share by what each arc brought, so that nothing but the forward weights is needed.
Shapes: B rows, T time, K states, G rows of weights, A arcs, P parts with sums of their own.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

LEAST = 1e-150  # share of a state below which its row is done in logs: times an arc's weight still a number
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


class Problem(NamedTuple):
    """What the loops read; the arcs are sorted by row of weights, then by where they lead to."""

    e_BTK: np.ndarray
    from_A: np.ndarray
    first_GK: np.ndarray
    """Where each state's arcs begin, and where the last one's end: flat (G K + 1)."""
    arc_A: np.ndarray
    log_A: np.ndarray
    start_GK: np.ndarray
    end_GK: np.ndarray
    length_B: np.ndarray
    narrow: bool
    """Whether no arc is so weak that a product with a share could be lost."""


@numba.njit(**_OPTIONS)
def _own(p, b):
    """A row's first state in the flat list of arcs, its starts and its ends."""
    K = p.e_BTK.shape[2]
    g = b * K if len(p.first_GK) > K + 1 else 0
    start, end = p.start_GK[b if len(p.start_GK) > 1 else 0], p.end_GK[b if len(p.end_GK) > 1 else 0]
    return p.first_GK[g : g + K + 1], start, end


@numba.njit(**_OPTIONS)
def _log(x):
    return math.log(x) if x > 0 else -np.inf


@numba.njit(**_OPTIONS)
def _scaled(p, b, a_TK):
    """Shares of the states (T, K), each step's sum 1; returns the score, NaN where a state would be lost."""
    first, start, end = _own(p, b)
    score, total = 0.0, 0.0
    for t in range(p.length_B[b]):
        e = p.e_BTK[b, t]
        highest, total = e.max(), 0.0
        if highest == -np.inf:
            return -np.inf
        for k in range(len(e)):
            into = start[k] if t == 0 else 0.0
            if t > 0:
                for at in range(first[k], first[k + 1]):
                    into += a_TK[t - 1, p.from_A[at]] * p.arc_A[at]
            a_TK[t, k] = into * math.exp(e[k] - highest)
            total += a_TK[t, k]
            if into > 0 and e[k] > -np.inf and a_TK[t, k] < LEAST:
                return np.nan
        if total == 0:
            return -np.inf
        for k in range(len(e)):
            a_TK[t, k] /= total
            if 0 < a_TK[t, k] < LEAST:
                return np.nan
        score += math.log(total) + highest
    total = 0.0
    for k in range(len(end)):
        total += a_TK[p.length_B[b] - 1, k] * end[k]
    return score + _log(total) if score < np.inf else np.nan


@numba.njit(**_OPTIONS)
def _logs(p, b, a_TK):
    """Logs of the weights of the states (T, K); returns the score."""
    first, start, end = _own(p, b)
    for t in range(p.length_B[b]):
        for k in range(len(end)):
            into = _log(start[k]) if t == 0 else -np.inf
            if t > 0:
                for at in range(first[k], first[k + 1]):
                    into = max(into, a_TK[t - 1, p.from_A[at]] + p.log_A[at])
            if t > 0 and into > -np.inf:
                total = 0.0
                for at in range(first[k], first[k + 1]):
                    total += math.exp(a_TK[t - 1, p.from_A[at]] + p.log_A[at] - into)
                into += math.log(total)
            a_TK[t, k] = into + p.e_BTK[b, t, k]
    last, highest, total = a_TK[p.length_B[b] - 1], -np.inf, 0.0
    for k in range(len(end)):
        highest = max(highest, last[k] + _log(end[k]))
    if highest == -np.inf:
        return -np.inf
    for k in range(len(end)):
        total += math.exp(last[k] + _log(end[k]) - highest)
    return highest + math.log(total)


@numba.njit(**_OPTIONS)
def _score(p, b, a_TK):
    """The score of a row, and whether its weights are in logs."""
    if p.length_B[b] == 0:
        return 0.0, False
    score = _scaled(p, b, a_TK) if p.narrow else np.nan
    return (_logs(p, b, a_TK), True) if math.isnan(score) else (score, False)


@numba.njit(**_OPTIONS)
def _flow(p, b, a_TK, logs, de_TK, darc_A):
    """Posteriors of the last state in ``de_TK[-1]`` -> those of all before it; gradients of the arcs are added."""
    first, _, _ = _own(p, b)
    for t in range(p.length_B[b] - 1, 0, -1):
        for k in range(len(first) - 1):
            share = de_TK[t, k]
            if share == 0:
                continue
            into = 0.0
            if logs:
                into = a_TK[t, k] - p.e_BTK[b, t, k]
            else:
                for at in range(first[k], first[k + 1]):
                    into += a_TK[t - 1, p.from_A[at]] * p.arc_A[at]
            for at in range(first[k], first[k + 1]):
                j = p.from_A[at]
                slope = share * (math.exp(a_TK[t - 1, j] - into) if logs else a_TK[t - 1, j] / into)
                darc_A[at] += slope
                de_TK[t - 1, j] += slope * p.arc_A[at]


def _score_body(p, score_B):
    for b in numba.prange(len(score_B)):
        score_B[b], _ = _score(p, b, np.empty((p.length_B[b], p.e_BTK.shape[2])))


def _adjoint_body(p, dscore_B, de_BTK, darc_PA, dstart_BK, dend_BK):
    B, _, K = de_BTK.shape
    parts = len(darc_PA)
    for part in numba.prange(parts):
        for b in range(part * B // parts, (part + 1) * B // parts):
            length = p.length_B[b]
            a_TK = np.empty((length, K))
            score, logs = _score(p, b, a_TK)
            if length == 0 or score == -np.inf:
                continue
            _, start, end = _own(p, b)
            total = 0.0
            for k in range(K):
                total += a_TK[length - 1, k] * end[k]
            for k in range(K):
                if end[k] > 0:
                    last = a_TK[length - 1, k]
                    dend_BK[b, k] = dscore_B[b] * (math.exp(last - score) if logs else last / total)
                    de_BTK[b, length - 1, k] = dend_BK[b, k] * end[k]
            _flow(p, b, a_TK, logs, de_BTK[b], darc_PA[part])
            for k in range(K):
                if start[k] > 0:
                    dstart_BK[b, k] = de_BTK[b, 0, k] / start[k]


score = numba.njit(**_OPTIONS)(_score_body)
score_parallel = numba.njit(parallel=True, **_OPTIONS)(_score_body)
adjoint = numba.njit(**_OPTIONS)(_adjoint_body)
adjoint_parallel = numba.njit(parallel=True, **_OPTIONS)(_adjoint_body)
