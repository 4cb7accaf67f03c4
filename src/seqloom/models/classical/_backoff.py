"""What the models that count contexts share: a trie of n-grams with a probability at each node and a way down.

    p(w | h) = p[h w]                    where h w was seen
             = back[h] p(w | h')         otherwise: h' is h without its first symbol (Ngram, PPM, LeZi),
             = back[h] q(w)              or the unigram at once (Markov, KTestable)

The memory is one number: the node of the longest context that was seen. Reading a token is a binary search among the
children, then a step along the links where there is none.
Shapes: B rows, T time, V vocabulary, L tokens of a stream, G nodes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numba
import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._stream import Stream, spread
from seqloom.models.classical._trie import Trie, build, child

BLOCK = 1 << 14  # tokens that a thread scores at a time


class Table(NamedTuple):
    """A trie in the form that the loops read: log-probabilities, logs of the way down, and a unigram."""

    symbol: np.ndarray
    first: np.ndarray
    link: np.ndarray
    log_p: np.ndarray
    log_back: np.ndarray
    log_base_V: np.ndarray
    """Empty where an unseen continuation is looked up in the next shorter context instead."""


class BackoffModel(ClassicalModel):
    """Base of Ngram, Markov, PPM, LeZi and KTestable."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalModel.Config):
        """Options that all of them have."""

        order: int = 5
        """The highest order; what it counts is said by the model."""
        choose: bool = True
        """With validation data, take the order up to this one that predicts it best; the lower one on a tie."""

    behind: ClassVar[int] = 0
    """How much longer the n-grams are than the order says."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where the order is below 1."""
        super().__init__(sizes, config)
        if self.config.order < 1:
            raise ConfigError(f"order must be at least 1, not {self.config.order}")

    @property
    def order(self) -> int:
        """The order that was learnt: the Config's, or the one chosen on validation data."""
        self._check_fitted()
        return self.trie.order - self.behind

    @property
    def held_parameters(self) -> int:
        """Probabilities of n-grams and the weights of contexts."""
        self._check_fitted()
        return len(self.table.log_p) + len(self.table.log_back)

    @abstractmethod
    def _table(self, trie: Trie) -> Table:
        """Probabilities from counts."""

    def _adjust(self, trie: Trie) -> Trie:
        """The counts that the probabilities are made of; a model that needs others overrides it."""
        return trie

    def _count(self, stream: Stream, progress: Progress) -> Trie:
        """The n-grams of the highest order; a model that counts by another rule overrides it."""
        return build(stream, self.sizes.vocabulary, self.config.order + self.behind, progress)

    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        whole = self._count(stream, progress)
        orders = [whole.order]
        if self.config.choose and valid is not None and valid.predicted:
            orders = list(range(1 + self.behind, whole.order + 1))
        scores = []
        for order in orders:
            self._keep(self._adjust(whole.cut(order)))
            scores.append(valid.ragged(self._score(valid)).values.sum() if valid is not None and orders[1:] else 0.0)
        best = orders[int(np.argmax(scores))]
        if best != self.trie.order:
            self._keep(self._adjust(whole.cut(best)))

    def _keep(self, trie: Trie) -> None:
        self.trie, self.table, self.reach = trie, self._table(trie), trie.order - 1

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        return self.trie.arrays()

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._keep(Trie.of_arrays(arrays, self.sizes.vocabulary))
        self.fitted = True

    def _start(self, rows: int) -> np.ndarray:
        return np.zeros((rows, 1))

    def _read(self, memory_BM: np.ndarray, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
        out_BT = np.empty(tokens_BT.shape)
        _read_rows(self.table, memory_BM[:, 0], np.ascontiguousarray(tokens_BT, np.int32), lengths_B, out_BT)
        return out_BT[..., None]

    def _log_probs(self, memory_BM: np.ndarray) -> np.ndarray:
        out_BV = np.empty((len(memory_BM), self.sizes.vocabulary))
        _distributions(self.table, np.ascontiguousarray(memory_BM[:, 0]), self.trie.order, out_BV)
        return out_BV

    def _score(self, stream: Stream) -> np.ndarray:
        out_L = np.zeros(len(stream.tokens))
        starts = np.arange(0, len(out_L), BLOCK)
        spread(partial(_score, self.table, stream.tokens, stream.offsets, self.reach, out_L), starts, len(out_L))
        return out_L


@numba.njit(cache=True, nogil=True, inline="always")
def _follow(table, node, w):
    """Log-probability of a symbol after a context, and the context after it."""
    value = 0.0
    direct = len(table.log_base_V) > 0
    known = False
    found = child(table.symbol, table.first, node, w)
    while found < 0:
        if not known:
            value += table.log_back[node]
            if direct:
                value += table.log_base_V[w]
                known = True
        node = table.link[node]
        found = child(table.symbol, table.first, node, w)
    if not known:
        value += table.log_p[found]
    contexts = len(table.first) - 1
    while found >= contexts or (found > 0 and table.first[found] == table.first[found + 1]):
        found = table.link[found]  # nothing was ever seen behind it
    return value, found


@numba.njit(cache=True, nogil=True)
def _score(table, tokens, offsets, reach, out, begin_block, end_block):
    """Score blocks of a stream; a block that begins inside a sequence reads what it needs of the block before."""
    begin = begin_block * BLOCK
    end = min(end_block * BLOCK, len(tokens))
    if begin >= end:
        return
    row = np.searchsorted(offsets, begin, side="right") - 1
    at = max(offsets[row], begin - reach)
    node = 0
    while at < end:
        while at == offsets[row + 1]:
            row += 1
            node = 0
        value, node = _follow(table, node, tokens[at])
        if at >= begin:
            out[at] = value
        at += 1


@numba.njit(cache=True, nogil=True)
def _read_rows(table, memory_B, tokens_BT, lengths_B, out_BT):
    """The context after every token; a row's last one stays behind its length."""
    for b in range(len(tokens_BT)):
        node = np.int64(memory_B[b])
        for t in range(tokens_BT.shape[1]):
            if t < lengths_B[b]:
                _, node = _follow(table, node, tokens_BT[b, t])
            out_BT[b, t] = node


@numba.njit(cache=True, nogil=True)
def _distributions(table, memory_B, longest, out_BV):
    """The whole distribution after each context: from the shortest context to the longest, seen symbols replaced."""
    path = np.empty(longest, np.int64)
    for b in range(len(memory_B)):
        node = np.int64(memory_B[b])
        depth = 0
        if len(table.log_base_V) > 0:
            path[0] = node
            depth = 1
            out_BV[b] = table.log_base_V
        else:
            while node != 0:
                path[depth] = node
                depth += 1
                node = table.link[node]
            out_BV[b] = table.log_p[1 : 1 + out_BV.shape[1]]
        for i in range(depth - 1, -1, -1):
            node = path[i]
            out_BV[b] += table.log_back[node]
            for at in range(table.first[node], table.first[node + 1]):
                out_BV[b, table.symbol[at]] = table.log_p[at]
