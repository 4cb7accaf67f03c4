"""How far shares of symbols lie apart, and how far chance alone brings samples of whole sequences apart.

    JSD(p, q) = (KL(p || m) + KL(q || m)) / 2,  m = (p + q) / 2,  in bits
    chance_m  = quantile of N JSD(p, q*) over samples q* of m units with N symbols in all

Symbols of one sequence hang together, so whole units are drawn. N JSD settles to one law as m grows (a weighted sum of
squared normals), so powers of two are enough, and what lies beyond the last one is as the last one.
Shapes: N sequences, K bins of symbols (the last one: all rarer symbols), U units, R replicates.
Source: Lin, "Divergence measures based on the Shannon entropy", 1991; Künsch, "The jackknife and the bootstrap for
general stationary observations", 1989, for runs of neighbours.
"""

import itertools
from typing import Any

import numpy as np

from seqloom.core.rng import generator
from seqloom.data.ragged import Ragged

FEW = 20
"""Below so many sequences, pieces of them are the units."""
PIECES, SHORTEST = 100, 50
UNITS, REPLICATES = 1000, 1000
RARE = 0.002
"""Share of samples of the same source that are allowed to lie further apart."""


def piece_of(lengths_N: np.ndarray) -> int:
    """Symbols of a piece where there are too few sequences to be units themselves; 0 = sequences are the units."""
    return 0 if len(lengths_N) >= FEW else max(SHORTEST, int(lengths_N.sum()) // PIECES)


def units(offsets: np.ndarray, piece: int) -> np.ndarray:
    """Borders of the units: sequences, or with ``piece`` equal parts of each of at least that many symbols."""
    offsets = np.asarray(offsets, np.int64) - offsets[0]
    if not piece:
        return offsets
    ends = itertools.pairwise(offsets.tolist())
    inner = [np.linspace(low, high, max((high - low) // piece, 1), endpoint=False) for low, high in ends if high > low]
    return np.append(np.concatenate(inner) if inner else np.zeros(0), offsets[-1]).astype(np.int64)


def sums(values: Any, offsets: np.ndarray) -> np.ndarray:
    """What each unit adds up to, float64 (U,)."""
    unit_L = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(unit_L, values, len(offsets) - 1)


def binned(tokens: Ragged, ids: tuple[int, ...]) -> np.ndarray:
    """The bin of every symbol, int64: the place of its id, or ``len(ids)`` for all others."""
    size = max(ids, default=0) + 1
    bin_V = np.full(size + 1, len(ids), np.int64)
    bin_V[list(ids)] = np.arange(len(ids))
    return bin_V[np.minimum(tokens.flat, size)]


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of shares (..., K) in bits."""
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        each = [np.where(one > 0, one * np.log2(one / middle), 0.0).sum(-1) for one in (p, q)]
    return (each[0] + each[1]) / 2


def chance(counts_UK: np.ndarray, *, neighbours: bool) -> tuple[float, ...]:
    """N JSD that samples of at least 1, 2, 4, .. units stay below, but for the share ``RARE`` of them.

    A short sequence cannot lie further apart than its N bits, so what more units show counts for one as well.

    Args:
        counts_UK: Symbols of each unit by bin.
        neighbours: Draw runs of neighbours: pieces of one sequence resemble those beside them.
    """
    count = len(counts_UK)
    share_K = counts_UK.sum(0) / max(counts_UK.sum(), 1)
    most = count // 4 if neighbours else count
    found: list[float] = []
    for size in itertools.takewhile(lambda size: size <= max(most, 1), (1 << k for k in itertools.count())):
        if neighbours:
            total_UK = np.concatenate([np.zeros((1, counts_UK.shape[1])), counts_UK.cumsum(0)])
            drawn_RK = total_UK[size:] - total_UK[:-size]
        else:
            drawn_RK = _weights(count, size) @ counts_UK
        symbols_R = drawn_RK.sum(1)
        drawn_RK, symbols_R = drawn_RK[symbols_R > 0], symbols_R[symbols_R > 0]
        apart_R = symbols_R * divergence(share_K, drawn_RK / symbols_R[:, None])
        found.append(float(np.quantile(apart_R, 1 - RARE)) if len(apart_R) else 0.0)
    return tuple(float(level) for level in np.maximum.accumulate(found[::-1])[::-1])


def expected(chance: tuple[float, ...], size: float) -> float:
    """The entry for a sample of ``size`` units, between the powers of two along their logarithm."""
    return float(np.interp(np.log2(max(size, 1.0)), np.arange(len(chance)), chance))


def clumping(counts_U: np.ndarray, lengths_U: np.ndarray) -> float:
    """How many times more a share varies between units than it would if symbols were independent; at least 1."""
    total = lengths_U.sum()
    share = counts_U.sum() / max(total, 1)
    if not 0 < share < 1:
        return 1.0
    return max(1.0, float(((counts_U - lengths_U * share) ** 2).sum() / (total * share * (1 - share))))


def tail(found: float, of: float, share: float) -> float:
    """Probability of at least ``found`` of ``of`` where each comes with the probability ``share``."""
    low, count = int(np.floor(found)), int(np.ceil(of))
    if low <= 0 or not 0 < share < 1:
        return 1.0
    log_k = np.log(np.arange(1, count + 1))
    log_factorial = np.concatenate([[0.0], np.cumsum(log_k)])
    k = np.arange(low, count + 1)
    log_p = log_factorial[count] - log_factorial[k] - log_factorial[count - k]
    log_p += k * np.log(share) + (count - k) * np.log1p(-share)
    return float(min(np.exp(log_p).sum(), 1.0))


def _weights(count: int, size: int) -> np.ndarray:
    """How often each unit is drawn in each replicate (R, U), with replacement."""
    drawn_RU = generator(0, "drift", count, size).integers(count, size=(REPLICATES, size))
    flat = (drawn_RU + count * np.arange(REPLICATES)[:, None]).ravel()
    return np.bincount(flat, minlength=REPLICATES * count).reshape(REPLICATES, count).astype(np.float32)
