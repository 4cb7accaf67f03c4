"""N-grams with interpolated modified Kneser-Ney smoothing: the count model that networks have to beat.

    p(w | h) = (a(h w) - D(a(h w))) / s(h) + back(h) p(w | h')        s(h) = sum_w a(h w)
    back(h)  = (D1 N1(h) + D2 N2(h) + D3 N3+(h)) / s(h)               N_k(h): symbols with a(h w) = k after h
    D1 = 1 - 2 Y n2 / n1,  D2 = 2 - 3 Y n3 / n2,  D3+ = 3 - 4 Y n4 / n3,  Y = n1 / (n1 + 2 n2)   for each order

h' is h without its first symbol, n_k the n-grams of an order with a = k. At the highest order, and for n-grams that
begin with <bos>, a is the count; at lower orders the number of different symbols seen before the n-gram. Below the
unigram lies the uniform distribution over the ordinary symbols, <eos> and <unk>, so that all of them have some mass.
An order whose n_k do not give discounts (small alphabets, tiny data) takes D = 1/2, 1, 3/2.

Shapes: G nodes of the trie, V vocabulary.
Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998 (TR-10-98),
sections 2.7 and 3; Kneser and Ney, 1995. One <bos> opens a sequence, shorter contexts are not filled up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numba
import numpy as np

from seqloom.core.errors import CheckpointError
from seqloom.core.specials import SPECIALS
from seqloom.models.classical._backoff import BackoffModel, Table
from seqloom.models.classical._counts import predictable
from seqloom.models.classical._stream import spread
from seqloom.models.classical._trie import Trie

USUAL = (0.0, 0.5, 1.0, 1.5)


class Ngram(BackoffModel):
    """Interpolated modified Kneser-Ney; ``order`` 5 looks back four symbols."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BackoffModel.Config):
        """Options of the counts."""

    def _adjust(self, trie: Trie) -> Trie:
        count = trie.count.copy()
        low, high = 1 + SPECIALS.bos, 2 + SPECIALS.bos  # the nodes whose n-grams begin with <bos>
        for n in range(1, trie.order):
            here = trie.layer(n)
            before = np.bincount(trie.link[trie.layer(n + 1)] - here.start, minlength=here.stop - here.start)
            if n > 1:
                before = np.maximum(before, 1)  # the first n-gram of a window has a neighbour that is not shown
            before[low - here.start : high - here.start] = count[low:high]
            count[here] = before
            low, high = int(trie.first[low]), int(trie.first[high])
        return replace(trie, count=count)

    def _table(self, trie: Trie) -> Table:
        p_G, back_G = np.empty(len(trie.symbol)), np.ones(trie.contexts)
        p_G[0] = 1.0
        mask_V = predictable(self.sizes.vocabulary)
        uniform_V = mask_V / mask_V.sum()
        for n in range(1, trie.order + 1):
            parents, discount = trie.layer(n - 1), _discounts(trie, n)
            starts = trie.first[parents] - trie.layers[n]
            work = partial(_fill, trie.first, trie.count, trie.link, discount, uniform_V, parents.start, p_G, back_G)
            spread(work, starts, int(trie.layers[n + 1] - trie.layers[n]))
        with np.errstate(divide="ignore"):  # <bos> and its kin have probability 0
            return Table(trie.symbol, trie.first, trie.link, np.log(p_G), np.log(back_G), np.zeros(0))

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().load(arrays)
        if not np.isfinite(self.table.log_back).all():
            raise CheckpointError("the saved counts give no probabilities: the file was edited, save the model again")


def _discounts(trie: Trie, n: int) -> np.ndarray:
    """D for the counts 0, 1, 2 and 3 or more of an order (4,)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(trie.count[trie.layer(n)], 5), minlength=6)[1:5].tolist()
    if not (n1 and n2 and n3):
        return np.array(USUAL)
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return found if (found[1:] > 0).all() else np.array(USUAL)


@numba.njit(cache=True, nogil=True)
def _fill(first, count, link, discount, uniform_V, base, p_G, back_G, begin, end):
    """Probabilities behind the contexts ``base + begin`` to ``base + end``; those of the layer below are ready."""
    for g in range(base + begin, base + end):
        total, taken = 0.0, 0.0
        for c in range(first[g], first[g + 1]):
            total += count[c]
            taken += discount[min(count[c], 3)]
        if total > 0:
            back_G[g] = taken / total
        for c in range(first[g], first[g + 1]):
            lower = uniform_V[c - 1] if g == 0 else p_G[link[c]]
            own = (count[c] - discount[min(count[c], 3)]) / total if total > 0 else 0.0
            p_G[c] = own + back_G[g] * lower
