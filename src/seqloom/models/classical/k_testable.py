"""k-testable language in the strict sense, with frequencies: a string is known by the k-grams it is made of.

    p(w | h) = (c(h w) + m q(w)) / (c(h) + m)        h: the last k - 1 symbols, or all of a shorter beginning
    p(w | h) = q(w)                                  where h was never seen: the automaton has no such state

It is the automaton that has the training strings' beginnings and (k - 1)-grams as its states and their k-grams as its
edges; q is the smoothed unigram. Against Markov and Ngram: a context that was not seen whole is not shortened, so the
automaton is lost until k - 1 symbols that it knows have come, and one k serves all places. What it does not know it
says, which is the point of a language: any shorter context would accept more than the data have shown.

k and m are those, of the ones given, that predict the validation data best.
Shapes: G nodes of the trie, C contexts among them.
Source: Garcia and Vidal, "Inference of k-testable languages in the strict sense and application to syntactic pattern
recognition", IEEE Trans. Pattern Analysis and Machine Intelligence 12(9), 1990.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.models.classical._automaton import Automaton
from seqloom.models.classical._backoff import BackoffModel, Table
from seqloom.models.classical._counts import smoothed
from seqloom.models.classical._stream import Stream
from seqloom.models.classical._trie import Trie


class KTestable(BackoffModel):
    """k-testable automaton with frequencies; ``order`` is k."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BackoffModel.Config):
        """Options of the automaton."""

        strengths: tuple[float, ...] = (1.0, 0.1, 4.0, 16.0, 64.0)
        """m: pseudo-events of the unigram in every state; the best on validation data, else the first; above 0."""
        pseudocount: float = 0.5
        """Added to the count of every symbol in the unigram; above 0."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where the order is below 1 or an amount of smoothing is not positive."""
        super().__init__(sizes, config)
        if not self.config.strengths or not all(m > 0 for m in (*self.config.strengths, self.config.pseudocount)):
            raise ConfigError("strengths and pseudocount must be above 0, and there must be a strength")
        self.strength: float = self.config.strengths[0]

    @property
    def automaton(self) -> Automaton:
        """States by their numbers in the trie's order, the empty beginning first, and the k-grams as edges."""
        self._check_fitted()
        return _automaton(self.trie)

    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        whole = self._count(stream, progress)
        choices = [(whole.order, self.config.strengths[0])]
        if valid is not None and valid.predicted:
            orders = range(1, whole.order + 1) if self.config.choose else [whole.order]
            choices = list(product(orders, self.config.strengths))
        scores = []
        for order, self.strength in choices:
            self._keep(whole.cut(order))
            scores.append(valid.ragged(self._score(valid)).values.sum() if valid is not None and choices[1:] else 0.0)
        order, self.strength = choices[int(np.argmax(scores))]
        self._keep(whole.cut(order))

    def _table(self, trie: Trie) -> Table:
        log_base_V = smoothed(trie.count[trie.layer(1)], self.config.pseudocount)
        total_C, known_C = trie.sums(trie.count), _states(trie)
        base_G = np.exp(log_base_V)[trie.symbol]
        share_G = (trie.count + self.strength * base_G)[1:] / trie.of_parents(total_C + self.strength)
        p_G = np.concatenate([[1.0], np.where(trie.of_parents(known_C), share_G, base_G[1:])])
        log_back_C = np.where(known_C, np.log(self.strength / (total_C + self.strength)), 0.0)
        with np.errstate(divide="ignore"):  # <bos> and its kin have probability 0
            return Table(trie.symbol, trie.first, trie.link, np.log(p_G), log_back_C, log_base_V)

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "strength": np.array([self.strength])}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        strength = np.asarray(arrays.get("strength", ()), np.float64)
        if strength.shape != (1,) or not 0 < strength < np.inf:
            raise CheckpointError("the saved automaton has no strength above 0: save the model again")
        self.strength = float(strength[0])
        super().load(arrays)


def _states(trie: Trie) -> np.ndarray:
    """True for the contexts that are states: of k - 1 symbols, or shorter and a beginning."""
    known_C = np.zeros(trie.contexts, bool)
    known_C[trie.layer(trie.order - 1)] = True
    low, high = 1 + SPECIALS.bos, 2 + SPECIALS.bos  # the nodes whose n-grams begin with <bos>
    while low < high and high <= trie.contexts:
        known_C[low:high] = True
        low, high = int(trie.first[low]), int(trie.first[high])
    return known_C


def _automaton(trie: Trie) -> Automaton:
    """The states and k-grams of a trie; where nothing followed, as behind an end, an edge leads to the beginning."""
    kids_C, leads_G = np.diff(trie.first), np.arange(len(trie.symbol))
    followed_G = np.append(kids_C > 0, np.zeros(len(leads_G) - len(kids_C), bool))
    while not followed_G[leads_G].all():  # the walk takes the longest suffix that something followed
        leads_G = np.where(followed_G[leads_G], leads_G, trie.link[leads_G])
    known_C = _states(trie) & (kids_C > 0)
    beginning = 1 + SPECIALS.bos if trie.order > 1 else 0
    others_S = np.flatnonzero(known_C)
    number_C = np.zeros(trie.contexts, np.int64)
    number_C[others_S[others_S != beginning]] = 1 + np.arange((others_S != beginning).sum())
    parent_E = trie.of_parents(np.arange(trie.contexts))
    edge_E = 1 + np.flatnonzero(known_C[parent_E] & (trie.count[1:] > 0))
    source_E = number_C[parent_E[edge_E - 1]]
    edge_E = edge_E[np.argsort(source_E, kind="stable")]
    first_S = np.concatenate([[0], np.cumsum(np.bincount(source_E, minlength=int(number_C.max()) + 1))])
    target_E = number_C[leads_G[edge_E]].astype(np.int32)
    return Automaton(first_S, trie.symbol[edge_E], target_E, trie.count[edge_E])
