"""All-k-order Markov model (AKOM): the frequencies after the longest context that was seen.

    p(w | h) = (c(h w) + m q(w)) / (c(h) + m)        h: the longest of the last k, k - 1, .., 0 symbols seen in training
    q(w)     = (c(w) + a) / (n + a |A|)

The published model has no word for a symbol that never followed h; here m pseudo-events are drawn from the smoothed
unigram q, so that the distribution is proper. Counts are raw, and shorter contexts are not mixed in: that is Ngram.
Shapes: V vocabulary.
Source: Pitkow and Pirolli, "Mining longest repeating subsequences to predict world wide web surfing", 1999;
Tax, Teinemaa and van Zelst, 2018, arXiv:1811.00062, section 3.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.models.classical._backoff import BackoffModel, Table
from seqloom.models.classical._counts import smoothed
from seqloom.models.classical._trie import Trie


class Markov(BackoffModel):
    """Longest seen context of up to ``order`` symbols; order 1 is the Markov chain."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BackoffModel.Config):
        """Options of the frequencies."""

        strength: float = 1.0
        """m: how many pseudo-events of the unigram every context has; above 0."""
        pseudocount: float = 0.5
        """a: added to the count of every symbol in the unigram; above 0."""

    behind = 1

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where the order is below 1 or an amount of smoothing is not positive."""
        super().__init__(sizes, config)
        for name in ("strength", "pseudocount"):
            if not getattr(self.config, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self.config, name)}")

    def _table(self, trie: Trie) -> Table:
        log_base_V = smoothed(trie.count[trie.layer(1)], self.config.pseudocount)
        strength, contexts = self.config.strength, trie.contexts
        children_G = np.diff(trie.first)
        before = np.concatenate([[0], np.cumsum(trie.count[1:])])  # children are all nodes but the first, in order
        total_G = before[trie.first[1:] - 1] - before[trie.first[:-1] - 1]
        share = trie.count[1:] + strength * np.exp(log_base_V)[trie.symbol[1:]]
        log_p = np.zeros(len(trie.symbol))
        with np.errstate(divide="ignore"):  # <bos> and its kin have probability 0
            log_p[1:] = np.log(share / np.repeat(total_G + strength, children_G))
        log_back = np.log(strength / (total_G[:contexts] + strength))
        return Table(trie.symbol, trie.first, trie.link, log_p, log_back, log_base_V)
