"""Replay as a table: sets of markings become numbered states, made when a prefix first leads to them.

    state = {marking: cost}      cost: moves on the log or the model alone, beyond the fewest

A symbol that a marking allows is read by it, for nothing. One that it does not allow is skipped (a log move, 1) or
reached over symbols that are left out (a model move each). Markings that cost up to ``moves`` more than the cheapest go
on beside it, at most ``markings`` of them, so that a later symbol can tell which reading was right: an alignment of
the prefix whose search is bounded by both numbers. What was read where it fitted is not taken back, which an optimal
alignment may do; and nothing here depends on a clock.

State 0 knows nothing: a window that goes on from somewhere begins there, and its first symbol leads to the cheapest
marking behind that symbol. State 1 is the start. Where the table is full, a prefix goes on as its last symbol alone.
Shapes: L tokens of a stream, B rows, T time.
Source: Adriansyah, "Aligning observed and modeled behavior", 2014; Carmona et al., "Conformance checking", 2018.
"""

from typing import NamedTuple

import numba
import numpy as np

from seqloom.core.specials import SPECIALS
from seqloom.models.classical._markings import FRESH, Marking, Node, enabled, finish, fire, rank
from seqloom.models.classical._process_tree import Tree

LOST, START = 0, 1
FREE, BOS = -1, SPECIALS.bos
Costs = tuple[tuple[Marking, int], ...]


class Bounds(NamedTuple):
    """How far the search for an alignment goes."""

    moves: int
    markings: int
    states: int


class Replay:
    """The states of one tree and the table between them."""

    def __init__(self, tree: Tree, vocabulary: int, bounds: Bounds) -> None:
        """A table with the two first states."""
        self.root, self.vocabulary, self.bounds = Node(tree), vocabulary, bounds
        self.ways = self.root.paths()
        start: Costs = ((FRESH, 0),)
        self.costs: list[Costs] = [(), start]
        self.number: dict[Costs, int] = {(): LOST, start: START}
        self.origin: list[tuple[int, int]] = []
        """From which state and by which symbol each state was first reached, from number 2 on."""
        self._alone: dict[int, int] = {}
        self._used = 0
        self._keys, self._codes = np.full(1 << 10, FREE, np.int64), np.zeros(1 << 10, np.int64)

    def run(self, tokens_L: np.ndarray, fresh_L: np.ndarray, state: int = LOST) -> np.ndarray:
        """After each token twice the state, and 1 more where the token did not fit; ``fresh`` ones begin anew."""
        code_L = np.empty(len(tokens_L), np.int64)
        tokens_L = np.ascontiguousarray(tokens_L, np.int32)
        at, state = _walk(self._keys, self._codes, self.vocabulary, tokens_L, fresh_L, code_L, 0, state)
        while at < len(tokens_L):
            self.edge(state, int(tokens_L[at]))
            at, state = _walk(self._keys, self._codes, self.vocabulary, tokens_L, fresh_L, code_L, at, state)
        return code_L

    def edge(self, state: int, symbol: int) -> int:
        """Put the way from a state by a symbol into the table; its code."""
        way = self.ways.get(symbol)
        if way is None:
            code = 2 * state + (state != LOST and symbol != SPECIALS.eos)
        elif state == LOST:
            code = 2 * self._by_itself(symbol)
        else:
            costs, misfit = self._next(self.costs[state], way)
            to = self.number.get(costs)
            if to is None and len(self.costs) < self.bounds.states:
                to = self._new(costs, state, symbol)
            code = 2 * (self._by_itself(symbol) if to is None else to) + misfit
        if 2 * self._used >= len(self._keys):
            self._grow()
        _put(self._keys, self._codes, np.int64(state) * self.vocabulary + symbol, code)
        self._used += 1
        return code

    def trim(self, states: int) -> None:
        """Forget the states from a number on, and the ways into and out of them."""
        for costs in self.costs[states:]:
            del self.number[costs]
        del self.costs[states:], self.origin[states - 2 :]
        self._alone = {symbol: to for symbol, to in self._alone.items() if to < states}
        stays = (self._keys >= 0) & (self._keys < states * self.vocabulary) & (self._codes < 2 * states)
        keys, codes = self._keys[stays], self._codes[stays]
        self._used = len(keys)
        self._keys.fill(FREE)
        _put_all(self._keys, self._codes, keys, codes)

    def allowed(self, state: int) -> np.ndarray:
        """Rising ids of what the cheapest markings of a state allow, the end among them where it may be reached."""
        ids: set[int] = set()
        for at, cost in self.costs[state]:
            if not cost:
                ids |= enabled(self.root, at)
                if not finish(self.root, at):
                    ids.add(SPECIALS.eos)
        return np.array(sorted(ids), np.int64)

    def _next(self, costs: Costs, way: tuple[int, ...]) -> tuple[Costs, int]:
        """Markings after a symbol with their costs, and by how much the fewest moves rose: 0 or 1."""
        moves, found = self.bounds.moves, dict[Marking, int]()

        def offer(at: Marking, cost: int) -> None:
            found[at] = min(cost, found.get(at, cost))

        for at, cost in costs:
            fitting = fire(self.root, at, way, 0)
            for to, _ in fitting:
                offer(to, cost)
            if not fitting:
                offer(at, cost + 1)
                for to, spent in fire(self.root, at, way, moves):
                    offer(to, cost + spent)
        least = min(found.values())
        kept = [(at, cost - least) for at, cost in found.items() if cost - least <= moves]
        if len(kept) > 1:
            kept.sort(key=lambda pair: (pair[1], rank(pair[0])))
        return tuple(kept[: self.bounds.markings]), least

    def _by_itself(self, symbol: int) -> int:
        """The state of somebody who knows the last symbol alone: the fewest moves from the start to it."""
        if symbol not in self._alone:
            after = fire(self.root, FRESH, self.ways[symbol], self.root.least + len(self.ways))
            best = min(after, key=lambda pair: (pair[1], rank(pair[0])))
            costs: Costs = ((best[0], 0),)
            to = self.number.get(costs)
            self._alone[symbol] = self._new(costs, LOST, symbol) if to is None else to
        return self._alone[symbol]

    def _new(self, costs: Costs, state: int, symbol: int) -> int:
        self.number[costs] = len(self.costs)
        self.costs.append(costs)
        self.origin.append((state, symbol))
        return len(self.costs) - 1

    def _grow(self) -> None:
        old = self._keys >= 0
        keys, codes = self._keys[old], self._codes[old]
        self._keys, self._codes = np.full(2 * len(self._keys), FREE, np.int64), np.zeros(2 * len(self._keys), np.int64)
        _put_all(self._keys, self._codes, keys, codes)


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(keys, key):
    """Where a key stands, or the free place where it would."""
    mask = len(keys) - 1
    at = (key * 11400714819323199) >> 17 & mask
    while keys[at] != key and keys[at] != FREE:
        at = (at + 1) & mask
    return at


@numba.njit(cache=True, nogil=True)
def _put(keys, codes, key, code):
    at = _slot(keys, key)
    keys[at], codes[at] = key, code


@numba.njit(cache=True, nogil=True)
def _put_all(keys, codes, more, their):
    for i in range(len(more)):
        _put(keys, codes, more[i], their[i])


@numba.njit(cache=True, nogil=True)
def _walk(keys, codes, vocabulary, tokens, fresh, out, at, state):
    """Follow the table until a way is missing; where that is, and in which state."""
    while at < len(tokens):
        if fresh[at]:
            state = LOST
        if tokens[at] == BOS:
            out[at] = 2 * START
        else:
            slot = _slot(keys, state * vocabulary + tokens[at])
            if keys[slot] == FREE:
                break
            out[at] = codes[slot]
        state = out[at] >> 1
        at += 1
    return at, state
