"""All n-grams of a stream up to an order, as one breadth-first trie made by sorting.

    node 0 = the empty context      nodes 1 .. V = the symbols      nodes of layer n + 1 by (parent, symbol)
    children of node g = first[g] .. first[g + 1] - 1               link[w_1 .. w_n] = [w_2 .. w_n]

Layer n + 1 comes from layer n: the places where an n-gram ends are grouped already, so that each group is sorted by
the symbol that follows. A group is split by whoever owns it, therefore the trie is the same for any number of threads.
Time O(L order) on natural data, memory 20 bytes a token and 12 bytes a node.

Shapes: L tokens of the stream, G groups (nodes of a layer), V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import numba
import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.models.classical._counts import counted, predicted_counts
from seqloom.models.classical._stream import LONGEST, Stream, spread

PLACE = (1 << 32) - 1  # a key is a symbol in the high half and a place in the low one
SMALL = 24  # groups up to this size are sorted by insertion


@dataclass(frozen=True)
class Trie:
    """Nodes in the order of their numbers; nodes of the last layer have no entry in ``first``."""

    layers: np.ndarray
    """First node of each layer 0 .. order, and the number of nodes (order + 2)."""
    symbol: np.ndarray
    """Last symbol of each node's n-gram."""
    link: np.ndarray
    """Node of the n-gram without its first symbol."""
    first: np.ndarray
    """First child; one entry more than there are contexts."""
    count: np.ndarray
    """How often the n-gram was predicted."""

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.layers) - 2

    @property
    def contexts(self) -> int:
        """Nodes that may have children: those of every layer but the last."""
        return int(self.layers[-2])

    def cut(self, order: int) -> Self:
        """The trie of a lower order."""
        nodes, contexts = self.layers[order + 1], self.layers[order]
        return replace(
            self,
            layers=self.layers[: order + 2],
            symbol=self.symbol[:nodes],
            link=self.link[:nodes],
            first=self.first[: contexts + 1],
            count=self.count[:nodes],
        )

    def layer(self, n: int) -> slice:
        """Nodes of the n-grams of length ``n``."""
        return slice(int(self.layers[n]), int(self.layers[n + 1]))

    def sums(self, values_G: np.ndarray) -> np.ndarray:
        """For every context the sum over its children."""
        before_G = np.concatenate([[0], np.cumsum(values_G[1:])])  # children are all nodes but the first, in order
        return before_G[self.first[1:] - 1] - before_G[self.first[:-1] - 1]

    def of_parents(self, values_C: np.ndarray) -> np.ndarray:
        """For every node but the first the value of its parent."""
        return np.repeat(values_C, np.diff(self.first))

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        return {name: getattr(self, name) for name in ("layers", "symbol", "link", "first", "count")}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], vocabulary: int) -> Self:
        """Take back what ``arrays`` gave; CheckpointError for anything that the compiled loops could trip over."""
        try:
            kinds = {"layers": np.int64, "symbol": np.int32, "link": np.int32, "first": np.int32, "count": np.int64}
            trie = cls(**{name: np.ascontiguousarray(arrays[name], kind) for name, kind in kinds.items()})
        except KeyError as missing:
            raise CheckpointError(f"the saved n-grams lack {missing}: save the model again") from None
        if not _sound(trie, vocabulary):
            raise CheckpointError("the saved n-grams do not fit together: the file was cut or edited, save it again")
        return trie


class _Layer(NamedTuple):
    """Nodes of one length, and where their n-grams end."""

    symbol_G: np.ndarray
    link_G: np.ndarray
    kids_G: np.ndarray
    """Children of each node of the layer above."""
    start_G: np.ndarray
    """Where the places of each node begin in ``keys_L``."""
    size_G: np.ndarray
    keys_L: np.ndarray
    """Places by node, in the low half of each number."""
    ids_L: np.ndarray
    """Node of the n-gram that ends at each place."""


def build(stream: Stream, vocabulary: int, order: int, progress: Progress, since: Sequence[int] | None = None) -> Trie:
    """The trie of a stream. With ``since``, n-grams that end before place ``since[n - 1]`` are not counted.

    The places rise by at least one from order to order, so that the prefixes and suffixes of what is counted are too.
    """
    progress.stage("count n-grams", order, "order")
    follow_L = np.append(stream.tokens, np.int32(-1))[1:]
    follow_L[stream.offsets[1:][np.diff(stream.offsets) > 0] - 1] = -1
    layer = _symbols(stream, vocabulary)
    layers, links, symbols = [0, 1, 1 + vocabulary], [np.zeros(1, np.int32), layer.link_G], [layer.symbol_G]
    kids, counts = [layer.kids_G], [np.array([stream.predicted]), predicted_counts(stream, vocabulary)]
    progress.advance()
    for n in range(2, order + 1):
        if since is not None:
            follow_L[: since[n - 1] - 1] = -1
        layer = _grow(layer, follow_L, vocabulary, layers[-1], last=n == order)
        layers.append(layers[-1] + len(layer.symbol_G))
        symbols.append(layer.symbol_G)
        links.append(layer.link_G)
        kids.append(layer.kids_G)
        counts.append(layer.size_G)
        progress.advance()
    return Trie(
        layers=np.array(layers),
        symbol=np.concatenate([np.zeros(1, np.int32), *symbols]),
        link=np.concatenate(links),
        first=np.concatenate([[1], 1 + np.cumsum(np.concatenate(kids), dtype=np.int64)]).astype(np.int32),
        count=np.concatenate(counts),
    )


def _symbols(stream: Stream, vocabulary: int) -> _Layer:
    """The first layer has a node for every id, seen or not, so that it can be indexed."""
    size_G = counted(stream.tokens, vocabulary)
    start_G = np.cumsum(size_G) - size_G
    keys_L = np.empty(len(stream.tokens), np.int64)
    _group(stream.tokens, start_G.copy(), keys_L)
    return _Layer(
        symbol_G=np.arange(vocabulary, dtype=np.int32),
        link_G=np.zeros(vocabulary, np.int32),
        kids_G=np.array([vocabulary]),
        start_G=start_G,
        size_G=size_G,
        keys_L=keys_L,
        ids_L=stream.tokens + np.int32(1),
    )


def _grow(above: _Layer, follow_L: np.ndarray, vocabulary: int, base: int, *, last: bool) -> _Layer:
    """N-grams that are longer by one symbol; their nodes begin at ``base``. The places of ``above`` are written over.

    A group's places stay inside its own range, and the node of a place is read before it is replaced, so that neither
    needs a second array: 20 million tokens would pay 250 MB for them.
    """
    groups, total = len(above.start_G), len(follow_L)
    keys_L, used_G, kids_G = above.keys_L, np.empty(groups, np.int32), np.empty(groups, np.int32)
    sort = partial(_sort_groups, keys_L, above.start_G, above.size_G, follow_L, vocabulary, used_G, kids_G)
    spread(sort, above.start_G, total)
    ends_G = np.cumsum(kids_G, dtype=np.int64)
    nodes = int(kids_G.sum())
    if base + nodes > LONGEST:
        raise ConfigError(f"the data has more than {LONGEST} n-grams: give a lower order")
    layer = _Layer(
        symbol_G=np.empty(nodes, np.int32),
        link_G=np.empty(nodes, np.int32),
        kids_G=kids_G,
        start_G=np.empty(nodes, np.int64),
        size_G=np.empty(nodes, np.int64),
        keys_L=keys_L,
        ids_L=np.empty(0, np.int32) if last else above.ids_L,
    )
    out = (layer.symbol_G, layer.link_G, layer.start_G, layer.size_G, layer.ids_L)
    name = partial(_name_children, keys_L, above.start_G, used_G, ends_G - kids_G, above.ids_L, base, *out)
    spread(name, above.start_G, total)
    return layer


def _sound(trie: Trie, vocabulary: int) -> bool:
    layers, nodes = trie.layers, len(trie.symbol)
    if layers.ndim != 1 or len(layers) < 3 or list(layers[:3]) != [0, 1, 1 + vocabulary] or layers[-1] != nodes:
        return False
    if (np.diff(layers) < 0).any() or not nodes == len(trie.link) == len(trie.count):
        return False
    first = trie.first
    if len(first) != layers[-2] + 1 or first[0] != 1 or first[-1] != nodes or (np.diff(first) < 0).any():
        return False
    if any(first[layers[n]] != layers[n + 1] for n in range(trie.order)):
        return False
    if (trie.symbol < 0).any() or (trie.symbol >= vocabulary).any() or (trie.count < 0).any():
        return False
    if not np.array_equal(trie.symbol[1 : 1 + vocabulary], np.arange(vocabulary)):
        return False
    return all(_links_down(trie, n) for n in range(trie.order + 1))


def _links_down(trie: Trie, n: int) -> bool:
    """Links of a layer point into the layer below it; the empty context points at itself."""
    link, low = trie.link[trie.layer(n)], max(n - 1, 0)
    return not ((link < trie.layers[low]).any() or (link >= trie.layers[low + 1]).any())


@numba.njit(cache=True, nogil=True)
def _group(tokens, next_of, keys):
    """Places of each symbol together, in rising order."""
    for at in range(len(tokens)):
        w = tokens[at]
        keys[next_of[w]] = at
        next_of[w] += 1


@numba.njit(cache=True, nogil=True)
def _sort_groups(out, start, size, follow, vocabulary, used, kids, begin, end):
    """Each group's places go one on and are sorted by the symbol there; count them and the different symbols."""
    bucket = np.zeros(vocabulary, np.int64)
    scratch = np.empty(0, np.int64)
    for g in range(begin, end):
        s = start[g]
        n = 0
        for i in range(s, s + size[g]):
            at = out[i] & PLACE
            w = follow[at]
            if w >= 0:  # what is kept never lies behind what is read
                out[s + n] = (np.int64(w) << 32) | (at + 1)
                n += 1
        if n <= SMALL:
            for i in range(s + 1, s + n):
                key = out[i]
                j = i
                while j > s and out[j - 1] > key:
                    out[j] = out[j - 1]
                    j -= 1
                out[j] = key
        elif 8 * n < vocabulary:
            out[s : s + n].sort()
        else:
            if n > len(scratch):
                scratch = np.empty(2 * n, np.int64)
            bucket[:] = 0
            for i in range(s, s + n):
                bucket[out[i] >> 32] += 1
                scratch[i - s] = out[i]
            place = s
            for w in range(vocabulary):
                count = bucket[w]
                bucket[w] = place
                place += count
            for i in range(n):
                w = scratch[i] >> 32
                out[bucket[w]] = scratch[i]
                bucket[w] += 1
        used[g] = n
        different = 0
        last = np.int64(-1)
        for i in range(s, s + n):
            w = out[i] >> 32
            different += w != last
            last = w
        kids[g] = different


@numba.njit(cache=True, nogil=True)
def _name_children(keys, start, used, number, ids, base, symbol, link, begin_of, size, ids_out, begin, end):
    """Give every different symbol of a group its node; ``ids`` has the shorter n-gram that ends at each place."""
    keep = len(ids_out) > 0
    for g in range(begin, end):
        node = number[g] - 1
        last = np.int64(-1)
        for i in range(start[g], start[g] + used[g]):
            w = keys[i] >> 32
            at = keys[i] & PLACE
            if w != last:
                node += 1
                symbol[node], link[node], begin_of[node], size[node] = w, ids[at], i, 0
                last = w
            size[node] += 1
            if keep:
                ids_out[at] = base + node


@numba.njit(cache=True, nogil=True, inline="always")
def child(symbol, first, node, w):
    """The child of a node by a symbol, -1 if there is none. The empty context has every symbol."""
    if node == 0:
        return 1 + w
    low, high = first[node], first[node + 1]
    while low < high:
        middle = (low + high) >> 1
        if symbol[middle] < w:
            low = middle + 1
        else:
            high = middle
    return low if low < first[node + 1] and symbol[low] == w else -1
