"""The loops of ``lattice_counts``: forwards and backwards through a table of symbols, counting on the way back.

Rows are scaled only when their sum has become small, and a long row is kept by its states every ``PIECE`` steps, from
which the rest is made again: K numbers a piece and K a step of one piece, however long the row is.
Shapes: B rows, T time, K states, V symbols, G rows of weights, P parts with sums of their own.
"""

import math

import numba
import numpy as np

PIECE = 2048  # steps that are kept at a time
LEAST, MOST = 1e-30, 1e30  # weights between which nothing can be lost between two scalings
SMALL, LARGE = 1e-60, 1e60  # sums beyond which a step is scaled
# sums may be taken in any order, so that they become vectors; the order is that of the compiled code, run after run
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@numba.njit(inline="always", **_OPTIONS)
def _times(x_SK, s, w_JK, out_SK, r):
    """Set out[r] = x[s] w, four rows of w at a time: one load and store of ``out`` for four products."""
    J, K = w_JK.shape
    for k in range(K):
        out_SK[r, k] = 0
    fours = J - J % 4
    for j in range(0, fours, 4):
        a, b, c, d = x_SK[s, j], x_SK[s, j + 1], x_SK[s, j + 2], x_SK[s, j + 3]
        for k in range(K):
            out_SK[r, k] += a * w_JK[j, k] + b * w_JK[j + 1, k] + c * w_JK[j + 2, k] + d * w_JK[j + 3, k]
    for j in range(fours, J):
        a = x_SK[s, j]
        for k in range(K):
            out_SK[r, k] += a * w_JK[j, k]


@numba.njit(**_OPTIONS)
def _forwards(symbol_T, begin, end, emission_VK, move_KK, start_K, a_SK):
    """States of the steps begin .. end in a_SK[1:], from those before in a_SK[0]; returns the logs of the scales."""
    logs, K = 0.0, len(start_K)
    for t in range(begin, end):
        s, x = t - begin, symbol_T[t]
        if t == 0:
            for k in range(K):
                a_SK[1, k] = start_K[k]
        else:
            _times(a_SK, s, move_KK, a_SK, s + 1)
        total = 0.0
        for k in range(K):
            a_SK[s + 1, k] *= emission_VK[x, k]
            total += a_SK[s + 1, k]
        if not SMALL < total < LARGE:
            if total == 0:
                return -np.inf
            for k in range(K):
                a_SK[s + 1, k] /= total
            logs += math.log(total)
    return logs


@numba.njit(**_OPTIONS)
def _backwards(symbol_T, begin, end, emission_VK, moved_KK, a_SK, b_2K, count_VK, arc_KK):
    """Count the steps end .. begin; ``b_2K`` is taken over from the piece behind, and handed on.

    Its first row is the weight of all ways from a state to the end; its second that of the step behind times the
    emission, what the arcs into it need.
    """
    K = len(arc_KK)
    for t in range(end - 1, begin - 1, -1):
        s, x = t - begin + 1, symbol_T[t]
        total = 0.0
        for k in range(K):
            total += a_SK[s, k] * b_2K[0, k]
        scale = 1 / total
        for j in range(K):
            share = a_SK[s, j] * scale
            for k in range(K):
                arc_KK[j, k] += share * b_2K[1, k]
        total = 0.0
        for k in range(K):
            count_VK[x, k] += a_SK[s, k] * scale * b_2K[0, k]
            b_2K[1, k] = emission_VK[x, k] * b_2K[0, k]
            total += b_2K[1, k]
        if t > 0:
            if not SMALL < total < LARGE:
                for k in range(K):
                    b_2K[1, k] /= total
            _times(b_2K, 1, moved_KK, b_2K, 0)


@numba.njit(**_OPTIONS)
def _row(symbol_T, emission_VK, move_KK, moved_KK, start_K, end_K, a_SK, count_VK, arc_KK, first_K, last_K):
    """All counts of one row are added; returns its score."""
    length, K = len(symbol_T), len(start_K)
    pieces = (length + PIECE - 1) // PIECE
    edge_NK = np.zeros((pieces, K))
    score = 0.0
    for piece in range(pieces):
        begin, end = piece * PIECE, min(length, (piece + 1) * PIECE)
        if piece > 0:
            edge_NK[piece] = a_SK[PIECE]
            a_SK[0] = edge_NK[piece]
        score += _forwards(symbol_T, begin, end, emission_VK, move_KK, start_K, a_SK)
        if score == -np.inf:
            return score
    b_2K = np.zeros((2, K))
    b_2K[0] = end_K
    last_K[:] = a_SK[length - (pieces - 1) * PIECE] * end_K
    total = last_K.sum()
    if total == 0:
        return -np.inf
    last_K /= total
    for piece in range(pieces - 1, -1, -1):
        begin, end = piece * PIECE, min(length, (piece + 1) * PIECE)
        if piece < pieces - 1:
            a_SK[0] = edge_NK[piece]
            _forwards(symbol_T, begin, end, emission_VK, move_KK, start_K, a_SK)
        _backwards(symbol_T, begin, end, emission_VK, moved_KK, a_SK, b_2K, count_VK, arc_KK)
    first_K[:] = a_SK[1] * b_2K[0]
    first_K /= first_K.sum()
    return score + math.log(total)


def _counts_body(
    symbol_BT, length_B, emission_VK, move_KK, start_GK, end_GK, score_B, count_PVK, arc_PKK, first_BK, last_BK
):
    B, parts, K = len(symbol_BT), len(count_PVK), len(move_KK)
    moved_KK = move_KK.T.copy()
    for part in numba.prange(parts):
        a_SK = np.empty((PIECE + 1, K))
        for b in range(part * B // parts, (part + 1) * B // parts):
            score_B[b] = 0
            if length_B[b] > 0:
                start, end = start_GK[b if len(start_GK) > 1 else 0], end_GK[b if len(end_GK) > 1 else 0]
                score_B[b] = _row(
                    symbol_BT[b, : length_B[b]],
                    emission_VK,
                    move_KK,
                    moved_KK,
                    start,
                    end,
                    a_SK,
                    count_PVK[part],
                    arc_PKK[part],
                    first_BK[b],
                    last_BK[b],
                )


counts = numba.njit(**_OPTIONS)(_counts_body)
counts_parallel = numba.njit(parallel=True, **_OPTIONS)(_counts_body)


@numba.njit(cache=True, nogil=True)
def outside(symbol_BT, length_B, V):
    """Whether a symbol is no row of the table, which compiled loops would not notice."""
    for b in range(len(symbol_BT)):
        for t in range(length_B[b]):
            if symbol_BT[b, t] < 0 or symbol_BT[b, t] >= V:
                return True
    return False
