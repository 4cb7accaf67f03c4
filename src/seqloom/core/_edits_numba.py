"""Dynamic programmes of ``seqloom.core.edits`` in numba, imported on first use: core itself loads without numba.

Shapes: n source length, m target length, P pairs. Codes are int64, equal exactly where the symbols are equal.
"""

import numba
import numpy as np

KEEP, SUBSTITUTE, DELETE, INSERT = 0, 1, 2, 3


@numba.njit(cache=True, nogil=True)
def constant(a, b, insert, delete, substitute):
    """Cost of the cheapest script for constant costs, in memory proportional to the shorter sequence."""
    if len(b) > len(a):
        a, b, insert, delete = b, a, delete, insert
    start, n, m = 0, len(a), len(b)
    while start < m and a[start] == b[start]:
        start += 1
    while m > start and a[n - 1] == b[m - 1]:
        n -= 1
        m -= 1
    row = np.empty(m - start + 1, np.float64)
    for j in range(m - start + 1):
        row[j] = j * insert
    for i in range(start, n):
        diagonal = row[0]
        row[0] += delete
        symbol, left = a[i], row[0]
        for j in range(m - start):
            above = row[j + 1]
            best = diagonal if symbol == b[start + j] else diagonal + substitute
            best = min(best, above + delete, left + insert)
            row[j + 1] = left = best
            diagonal = above
    return row[m - start]


@numba.njit(cache=True, nogil=True)
def constant_batch(codes, offsets, costs, out):
    """``constant`` for P pairs; sequence k is codes[offsets[k]:offsets[k+1]], pair p is (2p, 2p+1)."""
    for p in range(len(out)):
        a = codes[offsets[2 * p] : offsets[2 * p + 1]]
        b = codes[offsets[2 * p + 1] : offsets[2 * p + 2]]
        out[p] = constant(a, b, costs[0], costs[1], costs[2])


@numba.njit(cache=True, nogil=True)
def weighted(a, b, insert_m, delete_n, table):
    """Cost for costs that depend on the symbols; table[x, y] is the price of writing code y over code x."""
    row = np.zeros(len(b) + 1, np.float64)
    for j in range(len(b)):
        row[j + 1] = row[j] + insert_m[j]
    for i in range(len(a)):
        diagonal = row[0]
        row[0] += delete_n[i]
        for j in range(len(b)):
            above = row[j + 1]
            best = diagonal if a[i] == b[j] else diagonal + table[a[i], b[j]]
            row[j + 1] = min(best, above + delete_n[i], row[j] + insert_m[j])
            diagonal = above
    return row[len(b)]


@numba.njit(cache=True, nogil=True)
def script(a, b, insert_m, delete_n, substitute, table):
    """Return (cost, kinds): the first cheapest script where KEEP < SUBSTITUTE < DELETE < INSERT, read left to right.

    The table runs from the ends to the starts, so that the walk forward takes the earliest choice at each step.
    An empty ``table`` means the constant ``substitute``.
    """
    n, m = len(a), len(b)
    choice = np.empty((n + 1, m + 1), np.uint8)
    row = np.zeros(m + 1, np.float64)
    for j in range(m - 1, -1, -1):
        row[j] = row[j + 1] + insert_m[j]
        choice[n, j] = INSERT
    for i in range(n - 1, -1, -1):
        diagonal = row[m]
        row[m] += delete_n[i]
        choice[i, m] = DELETE
        for j in range(m - 1, -1, -1):
            below = row[j]
            if a[i] == b[j]:
                best, kind = diagonal, KEEP
            else:
                best, kind = diagonal + (substitute if table.size == 0 else table[a[i], b[j]]), SUBSTITUTE
            if below + delete_n[i] < best:
                best, kind = below + delete_n[i], DELETE
            if row[j + 1] + insert_m[j] < best:
                best, kind = row[j + 1] + insert_m[j], INSERT
            row[j], choice[i, j] = best, kind
            diagonal = below
    kinds = np.empty(n + m, np.uint8)
    i = j = length = 0
    while i < n or j < m:
        kind = choice[i, j]
        kinds[length] = kind
        length += 1
        i += kind != INSERT
        j += kind != DELETE
    return row[0], kinds[:length]
