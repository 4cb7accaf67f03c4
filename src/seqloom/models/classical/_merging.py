"""Prefix trees of sequences, and how ALERGIA folds one into an automaton.

    node 0 = the beginning      nodes in the order of (length, symbols) of their prefixes
    children of node g = first[g] .. first[g + 1] - 1

A node is red (a state), blue (the child of a red one) or neither. The first of the blue nodes is folded into the first
red node that it does not differ from, or becomes red itself, until none is left. Two nodes differ if the frequencies
of some symbol do by Hoeffding's bound, or if two of their successors by the same symbol differ. The tests read the
tree as it was counted; what is folded only adds up on the edges. Everything is a loop: a sequence may be a million
symbols long.
Shapes: G nodes; every node but the first has one edge to it, which carries its number.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numba
import numpy as np

from seqloom.core.specials import SPECIALS
from seqloom.models.classical._automaton import Automaton
from seqloom.models.classical._stream import Stream

BOS = SPECIALS.bos
WORK = 50_000_000
"""Frequencies compared before tests stop looking at successors, some seconds: long sequences that are nearly alike
would take a time that grows with the square of their length. It is a count, so that the result is always the same."""


class PrefixTree(NamedTuple):
    """A tree of prefixes with the counts of what was predicted."""

    first: np.ndarray
    symbol: np.ndarray
    count: np.ndarray


def prefix_tree(stream: Stream, vocabulary: int) -> PrefixTree:
    """The tree of a stream. A window that continues an earlier one begins anew, its first symbol uncounted."""
    parent_G, symbol_G, count_G = _insert(stream.tokens, stream.offsets, vocabulary)
    by_parent_E = 1 + np.lexsort((symbol_G[1:], parent_G[1:]))
    kids_G = np.bincount(parent_G[1:], minlength=len(parent_G))
    old_G = _breadth_first(by_parent_E, np.concatenate([[0], np.cumsum(kids_G)]))
    first_G = np.concatenate([[1], 1 + np.cumsum(kids_G[old_G])])
    return PrefixTree(first_G, symbol_G[old_G], count_G[old_G])


class Merged(NamedTuple):
    """What became of a tree."""

    automaton: Automaton
    forced: int
    """How many nodes were folded only because there were too many states already."""
    cut: bool
    """Whether the work was so much that successors were no longer looked at."""


def merge_states(tree: PrefixTree, eps: float, most: int, vocabulary: int) -> Merged:
    """ALERGIA's automaton of at most ``most`` states."""
    term, work = np.sqrt(0.5 * np.log(2 / eps)), np.array([WORK])
    red_S, to_G, count_G, owner_G, forced = _alergia(tree, *_totals(tree), term, work, most, np.int64(vocabulary))
    number_G = np.full(len(to_G), -1)
    number_G[red_S] = np.arange(len(red_S))
    edge_E = np.flatnonzero(owner_G >= 0)
    source_E = number_G[owner_G[edge_E]]
    edge_E = edge_E[np.lexsort((tree.symbol[edge_E], source_E))]
    first_S = np.concatenate([[0], np.cumsum(np.bincount(source_E, minlength=len(red_S)))])
    target_E = number_G[to_G[edge_E]].astype(np.int32)
    return Merged(Automaton(first_S, tree.symbol[edge_E], target_E, count_G[edge_E]), forced, bool(work[0] < 0))


def _totals(tree: PrefixTree) -> tuple[np.ndarray, np.ndarray]:
    """How often something came after each node, and the share of what came most."""
    before_G = np.concatenate([[0], np.cumsum(tree.count[1:])])
    total_G = before_G[tree.first[1:] - 1] - before_G[tree.first[:-1] - 1]
    top_G = np.zeros(len(total_G))
    used_G = total_G > 0
    # a node without children is its neighbour's for reduceat, therefore they are left out
    top_G[used_G] = np.maximum.reduceat(tree.count, tree.first[:-1][used_G]) / total_G[used_G] if used_G.any() else 0
    return total_G, top_G


@numba.njit(cache=True, nogil=True)
def _slot(keys, key):
    """Where a key is, or would be, in an open table of a power of two."""
    mask = np.uint64(len(keys) - 1)
    at = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while keys[at] != -1 and keys[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(cache=True, nogil=True)
def _wider(keys, values):
    """A table of twice the size with the same contents."""
    keys_out, values_out = np.full(2 * len(keys), -1, np.int64), np.empty(2 * len(keys), np.int64)
    for i in range(len(keys)):
        if keys[i] != -1:
            at = _slot(keys_out, keys[i])
            keys_out[at], values_out[at] = keys[i], values[i]
    return keys_out, values_out


@numba.njit(cache=True, nogil=True)
def _insert(tokens, offsets, vocabulary):
    """Nodes in the order in which they are met."""
    parent, symbol = np.full(len(tokens) + 1, -1, np.int64), np.zeros(len(tokens) + 1, np.int32)
    count = np.zeros(len(tokens) + 1, np.int64)
    keys, values, nodes = np.full(1024, -1, np.int64), np.empty(1024, np.int64), 1
    for row in range(len(offsets) - 1):
        node = 0
        for at in range(offsets[row], offsets[row + 1]):
            if at == offsets[row] and tokens[at] == BOS:
                continue
            key = node * vocabulary + tokens[at]
            slot = _slot(keys, key)
            if keys[slot] == -1:
                keys[slot], values[slot] = key, nodes
                parent[nodes], symbol[nodes] = node, tokens[at]
                node = nodes
                nodes += 1
                if 2 * nodes > len(keys):
                    keys, values = _wider(keys, values)
            else:
                node = values[slot]
            count[node] += at > offsets[row]
    return parent[:nodes], symbol[:nodes], count[:nodes]


@numba.njit(cache=True, nogil=True)
def _breadth_first(by_parent, start):
    """The nodes by length and symbols of their prefixes."""
    order = np.zeros(len(start) - 1, np.int64)
    end = 1
    for at in range(len(order)):
        for i in range(start[order[at]], start[order[at] + 1]):
            order[end] = by_parent[i]
            end += 1
    return order


@numba.njit(cache=True, nogil=True)
def _child(tree, g, w):
    """The child of a node by a symbol, -1 if the tree has none."""
    low, high = tree.first[g], tree.first[g + 1]
    while low < high:
        middle = (low + high) >> 1
        if tree.symbol[middle] < w:
            low = middle + 1
        else:
            high = middle
    return np.int64(low) if low < tree.first[g + 1] and tree.symbol[low] == w else np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _gap(tree, total, a, b):
    """The largest difference between the frequencies of a symbol after two nodes."""
    i, j, widest = tree.first[a], tree.first[b], 0.0
    while i < tree.first[a + 1] or j < tree.first[b + 1]:
        left = tree.symbol[i] if i < tree.first[a + 1] else np.int32(0x7FFFFFFF)
        right = tree.symbol[j] if j < tree.first[b + 1] else np.int32(0x7FFFFFFF)
        share_a = tree.count[i] / total[a] if left <= right else 0.0
        share_b = tree.count[j] / total[b] if right <= left else 0.0
        widest = max(widest, abs(share_a - share_b))
        i += left <= right
        j += right <= left
    return widest


@numba.njit(cache=True, nogil=True)
def _alike(tree, total, top, term, work, a, b):
    """Whether two nodes pass the test, and all their successors by the same symbols as long as work is left."""
    stack = [(a, b)]
    while stack:
        a, b = stack.pop()
        work[0] -= 1
        if tree.first[a] == tree.first[a + 1] or tree.first[b] == tree.first[b + 1]:
            continue
        if total[a] > 0 and total[b] > 0:
            bound = (np.sqrt(1 / total[a]) + np.sqrt(1 / total[b])) * term
            # no difference is larger than the larger share, which saves most of the work
            if max(top[a], top[b]) > bound:
                work[0] -= tree.first[a + 1] - tree.first[a] + tree.first[b + 1] - tree.first[b]
                if _gap(tree, total, a, b) > bound:
                    return False
        if work[0] < 0:
            return True
        if tree.first[a + 1] - tree.first[a] > tree.first[b + 1] - tree.first[b]:
            a, b = b, a
        for c in range(tree.first[a], tree.first[a + 1]):
            other = _child(tree, b, tree.symbol[c])
            if other >= 0:
                stack.append((c, other))
    return True


@numba.njit(cache=True, nogil=True)
def _nearest(tree, total, red, reds, b):
    """The red node whose frequencies are the nearest by the measure of the test."""
    best, least = red[0], np.inf
    for r in red[:reds]:
        if total[r] > 0 and total[b] > 0:
            gap = _gap(tree, total, r, b) / (np.sqrt(1 / total[r]) + np.sqrt(1 / total[b]))
            if gap < least:
                best, least = r, gap
    return best


class _Edges(NamedTuple):
    """What folding changes; an edge has the number of the node that it led to."""

    to: np.ndarray
    count: np.ndarray
    owner: np.ndarray
    """The red node that an edge leaves, -1 for all others."""
    head: np.ndarray
    """The first edge that came to a node by folding."""
    tail: np.ndarray
    follow: np.ndarray
    red: np.ndarray
    """True for the states."""


@numba.njit(cache=True, nogil=True)
def _alergia(tree, total, top, term, work, most, vocabulary):
    """Red nodes, where every edge leads, its count and its red source, and how many nodes had to go to the nearest."""
    nodes = len(tree.symbol)
    none = np.full(nodes, -1, np.int64)
    edges = _Edges(
        np.arange(nodes), tree.count.copy(), none.copy(), none.copy(), none.copy(), none, np.zeros(nodes, np.bool_)
    )
    keys, values, used = np.full(1024, -1, np.int64), np.empty(1024, np.int64), 0
    states, reds, forced = np.zeros(min(most, nodes), np.int64), 0, 0
    blue = [0]
    while blue:
        b = np.int64(heappop(blue))
        into = np.int64(-1)
        for r in states[:reds]:
            if _alike(tree, total, top, term, work, r, b):
                into = r
                break
        if into < 0 and reds == len(states):
            into = _nearest(tree, total, states, reds, b)
            forced += 1
        if into >= 0:
            edges.to[b] = into
            keys, values, used = _fold(tree, edges, blue, keys, values, used, into, b, vocabulary)
            continue
        at = np.searchsorted(states[:reds], b)  # what came by folding may lie before the states that there are
        states[at + 1 : reds + 1] = states[at:reds].copy()
        states[at] = b
        reds += 1
        edges.red[b] = True
        c = _opening(tree, edges, b)
        while c >= 0:
            edges.owner[c] = b
            heappush(blue, c)
            c = _following(tree, edges, b, c)
    return states[:reds], edges.to, edges.count, edges.owner, forced


@numba.njit(cache=True, nogil=True)
def _fold(tree, edges, blue, keys, values, used, into, b, vocabulary):
    """Lay the tree below one node over what lies below another. ``keys`` and ``values`` find what came by folding.

    Depth first, a node's own edges before those that came to it: of two subtrees for one place the first one stays.
    """
    stack = [(into, np.int64(b), _opening(tree, edges, b))]
    while stack:
        x, y, c = stack.pop()
        if c < 0:
            continue
        following = _following(tree, edges, y, c)
        if following >= 0:
            stack.append((x, y, following))
        key = x * vocabulary + tree.symbol[c]
        slot = _slot(keys, key)
        e = _child(tree, x, tree.symbol[c])
        if e < 0 and keys[slot] != -1:
            e = values[slot]
        if e >= 0:
            edges.count[e] += edges.count[c]
            stack.append((edges.to[e], c, _opening(tree, edges, c)))
            continue
        keys[slot], values[slot] = key, c
        used += 1
        if 2 * used > len(keys):
            keys, values = _wider(keys, values)
        edges.follow[c] = -1
        if edges.head[x] < 0:
            edges.head[x] = c
        else:
            edges.follow[edges.tail[x]] = c
        edges.tail[x] = c
        if edges.red[x]:
            edges.owner[c] = x
            heappush(blue, c)
    return keys, values, used


@numba.njit(cache=True, nogil=True)
def _opening(tree, edges, g):
    """The first edge of a node, -1 if it has none."""
    return np.int64(tree.first[g] if tree.first[g] < tree.first[g + 1] else edges.head[g])


@numba.njit(cache=True, nogil=True)
def _following(tree, edges, g, c):
    """The edge of a node after one of its edges, -1 behind the last."""
    own = tree.first[g] <= c < tree.first[g + 1]
    return np.int64(c + 1 if own and c + 1 < tree.first[g + 1] else edges.head[g] if own else edges.follow[c])
