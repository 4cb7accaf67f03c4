"""How the inductive miner splits an alphabet: cuts of the graph that says what directly follows what.

    X    parts with no edge between them            ->   every edge between parts leads on, never back
    +    all edges both ways between the parts      *    the rest is reached from ends and leads to starts alone

A cut is a list of parts, each a rising array of places in the alphabet; None where there is none.
Shapes: A symbols of the alphabet, P parts.
Source: Leemans, Fahland and van der Aalst, 2013, doi:10.1007/978-3-642-38697-8_17, section 4; Leemans, "Robust process
mining with guarantees", 2017, section 6.1, for the sequence whose parts are skipped together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numba
import numpy as np

from seqloom.models.classical._process_tree import CHOICE, LOOP, PARALLEL, SEQUENCE

Log = Mapping[tuple[int, ...], int]
"""Traces and how often each was seen."""
Parts = list[np.ndarray]
Bridges = dict[int, dict[tuple[int, int], int]]
"""For each symbol how often a run of it stood between which two places in the alphabet; -1 beyond the trace."""


@dataclass(frozen=True)
class Graph:
    """Directly-follows graph of a log."""

    symbols: list[int]
    """The alphabet, rising."""
    follows_AA: np.ndarray
    """How often the second came directly after the first."""
    starts_A: np.ndarray
    ends_A: np.ndarray

    def without(self, at: int, bridges: "Bridges") -> "Graph":
        """The graph of the log without one symbol, whose neighbours then follow each other."""
        follows_AA, starts_A, ends_A = self.follows_AA.copy(), self.starts_A.copy(), self.ends_A.copy()
        for (a, b), count in bridges.get(self.symbols[at], {}).items():
            if a >= 0 and b >= 0:
                follows_AA[a, b] += count
            elif b >= 0:
                starts_A[b] += count
            elif a >= 0:
                ends_A[a] += count
        keep_A = np.delete(np.arange(len(self.symbols)), at)
        symbols = [self.symbols[a] for a in keep_A.tolist()]
        return Graph(symbols, follows_AA[np.ix_(keep_A, keep_A)], starts_A[keep_A], ends_A[keep_A])

    def filtered(self, noise: float) -> "Graph":
        """Without what is rarer than a share of the most frequent way to go on (or to stop) from the same symbol."""
        most_A = np.maximum(self.follows_AA.max(1, initial=0), self.ends_A)
        follows_AA = np.where(self.follows_AA <= noise * most_A[:, None], 0, self.follows_AA)
        starts_A = np.where(self.starts_A <= noise * self.starts_A.max(initial=0), 0, self.starts_A)
        return replace(self, follows_AA=follows_AA, starts_A=starts_A)


def graph(log: Log) -> Graph:
    """The directly-follows graph of a log."""
    symbols = sorted({symbol for trace in log for symbol in trace})
    place = {symbol: at for at, symbol in enumerate(symbols)}
    follows_AA = np.zeros((len(symbols), len(symbols)), np.int64)
    starts_A, ends_A = np.zeros(len(symbols), np.int64), np.zeros(len(symbols), np.int64)
    edges: dict[tuple[int, int], int] = {}
    for trace, count in log.items():
        for edge in pairwise(trace):
            edges[edge] = edges.get(edge, 0) + count
        if trace:
            starts_A[place[trace[0]]] += count
            ends_A[place[trace[-1]]] += count
    for (a, b), count in edges.items():
        follows_AA[place[a], place[b]] = count
    return Graph(symbols, follows_AA, starts_A, ends_A)


def bridges(log: Log, of: Graph) -> Bridges:
    """What would follow what if a symbol were taken out."""
    place = {symbol: at for at, symbol in enumerate(of.symbols)}
    found: Bridges = {symbol: {} for symbol in of.symbols}
    for trace, count in log.items():
        runs = [-1, *(symbol for symbol, _ in groupby(trace)), -1]
        for before, symbol, after in zip(runs, runs[1:], runs[2:], strict=False):
            edge = place.get(before, -1), place.get(after, -1)
            found[symbol][edge] = found[symbol].get(edge, 0) + count
    return found


def find(of: Graph) -> tuple[int, Parts] | None:
    """The first operator that has a cut, and its parts."""
    for kind, cut in ((CHOICE, _choice), (SEQUENCE, _sequence), (PARALLEL, _parallel), (LOOP, _loop)):
        parts = cut(of)
        if parts is not None:
            return kind, parts
    return None


def _choice(of: Graph) -> Parts | None:
    return _several(_components(of.follows_AA > 0))


def _sequence(of: Graph) -> Parts | None:
    """Parts in a line; then those are merged that are skipped together, or their bond would be lost."""
    edge_AA = of.follows_AA > 0
    if _reached(edge_AA) and _reached(edge_AA.T):
        return None  # everything leads to everything
    reach_AA = _closure(edge_AA)
    parts = _components(reach_AA == reach_AA.T)
    parts.sort(key=lambda part: (-int(reach_AA[part[0]].sum()), int(part[0])))
    return _several(_skipped_together(of, parts)) if len(parts) > 1 else None


def _skipped_together(of: Graph, parts: Parts) -> Parts:
    """A part that can be skipped takes in earlier ones that lead no further than to it, and later ones likewise."""
    count = len(parts)
    edge_PP = _between(of, parts)
    starts = [bool(of.starts_A[part].any()) for part in parts]
    ends = [bool(of.ends_A[part].any()) for part in parts]
    latest = [max((q for q in range(count) if edge_PP[p, q]), default=-1) for p in range(count)]
    earliest = [min((q for q in range(count) if edge_PP[q, p]), default=count) for p in range(count)]
    latest = [count if ends[p] else latest[p] for p in range(count)]
    earliest = [-1 if starts[p] else earliest[p] for p in range(count)]
    group = list(range(count))
    for p in range(count):
        over = edge_PP[:p, p + 1 :].any() or any(starts[p + 1 :]) or any(ends[:p])
        if not over:
            continue
        q = p - 1
        while q >= 0 and latest[q] <= p and group[q] == q:
            group[q] = group[p]
            q -= 1
        q = p + 1
        while q < count and earliest[q] >= p and group[q] == q:
            group[q] = group[p]
            q += 1
    return [np.sort(np.concatenate([parts[q] for q in range(count) if group[q] == g])) for g in dict.fromkeys(group)]


def _parallel(of: Graph) -> Parts | None:
    """Parts that each begin and end some trace; one that does not joins another."""
    both_AA = (of.follows_AA > 0) & (of.follows_AA.T > 0)
    parts = sorted(_components(~both_AA), key=len)
    whole: Parts = []
    early: list[np.ndarray] = []
    for part in parts:
        if of.starts_A[part].any() and of.ends_A[part].any():
            whole.append(np.concatenate([*early, part]))
            early = []
        elif whole:
            whole[-1] = np.concatenate([whole[-1], part])
        else:
            early.append(part)
    return [np.sort(part) for part in whole] if len(whole) > 1 else None


def _loop(of: Graph) -> Parts | None:
    """What is done, with all starts and ends in it, then what leads back."""
    edge_AA = of.follows_AA > 0
    start_A, end_A = of.starts_A > 0, of.ends_A > 0
    body_A = start_A | end_A
    rest = np.flatnonzero(~body_A)
    inner = [rest[part] for part in _components(edge_AA[np.ix_(rest, rest)])]
    body, back = [np.flatnonzero(body_A)], []
    for part in inner:
        from_A, to_A = edge_AA[:, part].any(1), edge_AA[part].any(0)
        stray = (from_A & start_A & ~end_A).any() or (to_A & end_A & ~start_A).any()
        entered = edge_AA[np.ix_(end_A, part)]
        left = edge_AA[np.ix_(part, start_A)]
        partial = (entered.any(0) != entered.all(0)).any() or (left.any(1) != left.all(1)).any()
        (body if stray or partial else back).append(part)
    return [np.sort(np.concatenate(body)), *back] if back and body_A.any() else None


def _several(parts: Parts) -> Parts | None:
    return parts if len(parts) > 1 else None


def _between(of: Graph, parts: Parts) -> np.ndarray:
    """Which parts have an edge to which (P, P)."""
    member_PA = np.zeros((len(parts), len(of.symbols)), np.float32)
    for p, part in enumerate(parts):
        member_PA[p, part] = 1
    return member_PA @ (of.follows_AA > 0).astype(np.float32) @ member_PA.T > 0


def _components(edge_AA: np.ndarray) -> Parts:
    """Connected components, whichever way the edges lead, by their first members."""
    label_A = _label(edge_AA)
    return [np.flatnonzero(label_A == part) for part in range(label_A.max(initial=-1) + 1)]


@numba.njit(cache=True, nogil=True)
def _label(edge_AA):
    """Number of the component of each symbol."""
    count = len(edge_AA)
    label_A = np.full(count, -1)
    rest = np.empty(count, np.int64)
    parts = 0
    for first in range(count):
        if label_A[first] >= 0:
            continue
        label_A[first], rest[0], left = parts, first, 1
        while left:
            left -= 1
            a = rest[left]
            for b in range(count):
                if label_A[b] < 0 and (edge_AA[a, b] or edge_AA[b, a]):
                    label_A[b] = parts
                    rest[left] = b
                    left += 1
        parts += 1
    return label_A


@numba.njit(cache=True, nogil=True)
def _reached(edge_AA):
    """True where the first symbol leads to every other one."""
    count = len(edge_AA)
    seen_A = np.zeros(count, np.bool_)
    rest = np.zeros(count, np.int64)
    seen_A[:1] = True
    left = min(count, 1)
    while left:
        left -= 1
        a = rest[left]
        for b in range(count):
            if edge_AA[a, b] and not seen_A[b]:
                seen_A[b] = True
                rest[left] = b
                left += 1
    return seen_A.all()


@numba.njit(cache=True, nogil=True)
def _closure(edge_AA):
    """Which symbols can be reached from which, themselves among them."""
    count = len(edge_AA)
    reach_AA = edge_AA.copy()
    for a in range(count):
        reach_AA[a, a] = True
    for b in range(count):
        for a in range(count):
            if reach_AA[a, b]:
                reach_AA[a] |= reach_AA[b]
    return reach_AA
