"""Drawing sequences with replacement: the weights that a bootstrap multiplies its sums with.

    W[b, i] = how often unit i is drawn in replicate b        drawn_b = (W[b] @ sums) / (W[b] @ counts)
    mean*_b = mean + (drawn_b - mean) sqrt(U / chi2_b),  chi2_b with U - 1 degrees of freedom

A unit is a sequence, for the tokens of one sequence hang together. More than ``UNITS`` sequences are pooled at random
into so many units of equal numbers first: the spread of a sum over that many units is the same within 3 per cent.
Few units show too little of their own spread: left as they are, three would call every fourth difference real that is
none. The factor, one a replicate for all models, gives back what is missing, as Student's t does; with many it is 1.
Shapes: R replicates, N sequences, U units, M models.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapters 6 and 13; Student, "The
probable error of a mean", 1908.
"""

from collections.abc import Iterator

import numpy as np

from seqloom.core.rng import generator

UNITS = 2000
BLOCK = 500  # replicates at a time


def pooled(sums_NM: np.ndarray, seed: int) -> np.ndarray:
    """Sums (N, M) -> sums of at most ``UNITS`` units (U, M)."""
    if len(sums_NM) <= UNITS:
        return sums_NM
    unit_N = unit_of(len(sums_NM), UNITS, seed)
    return np.stack([np.bincount(unit_N, column, UNITS) for column in sums_NM.T], 1)


def unit_of(count: int, most: int, seed: int) -> np.ndarray:
    """The unit (N,) that each of so many sequences belongs to: its own, or one of ``most`` drawn at random."""
    return np.arange(count) if count <= most else generator(seed, "pool", count).permutation(count) % most


def means(units_UM: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Means that could have come out instead (R, M - 1), of at least two units; the last column holds their counts."""
    units = len(units_UM)
    sums_RM = np.concatenate([weights_BU @ units_UM for weights_BU in _weights(units, replicates, seed)])
    whole_M = units_UM.sum(0)
    mean_M = whole_M[:-1] / whole_M[-1]
    scale_R = np.sqrt(units / generator(seed, "student", units).chisquare(units - 1, replicates))
    return mean_M + (sums_RM[:, :-1] / sums_RM[:, -1:] - mean_M) * scale_R[:, None]


def _weights(units: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    for begin in range(0, replicates, BLOCK):
        rows = min(BLOCK, replicates - begin)
        drawn_BU = generator(seed, "bootstrap", begin).integers(units, size=(rows, units))
        flat = (drawn_BU + units * np.arange(rows)[:, None]).ravel()
        yield np.bincount(flat, minlength=rows * units).reshape(rows, units).astype(np.float64)
