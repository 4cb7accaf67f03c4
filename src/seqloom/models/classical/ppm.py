"""Prediction by partial matching, method C with exclusion: look into the longest context, escape to the next shorter.

    p(w | h) = c(h w) / (n(h) + d(h))                       where h w was seen;  n(h) = sum_w c(h w)
             = e(h) c(h' w) / (n(h') - x(h) + d(h'))        otherwise, if h' w was seen;  e(h) = d(h) / (n(h) + d(h))
             = e(h) d(h') / (n(h') - x(h) + d(h')) ..       otherwise: escape once more

d(h) is the number of different symbols after h, h' is h without its first symbol. x(h) = sum c(h' v) over the symbols v
that followed h: they are excluded below, for had one of them come, h would have told. Since what follows h follows h'
too, the exclusion depends on h alone, and the whole is a back-off with weights that are known after counting. Under
the empty context lie the symbols that training never saw, in equal shares; where there are none, nothing escapes.

Counts are those of all contexts, not only of the longest that knew the symbol (no update exclusion).
Shapes: G nodes of the trie, C contexts among them, V vocabulary.
Source: Cleary and Witten, "Data compression using adaptive coding and partial string matching", 1984; Moffat,
"Implementing the PPM data compression scheme", 1990 (method C); Cleary and Teahan, 1997, table 1 (exclusion).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import CheckpointError
from seqloom.models.classical._backoff import BackoffModel, Table
from seqloom.models.classical._counts import predictable
from seqloom.models.classical._trie import Trie


class PPM(BackoffModel):
    """PPM-C; ``order`` is the length of the longest context."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BackoffModel.Config):
        """Options of the counts."""

    behind = 1

    def _table(self, trie: Trie) -> Table:
        mask_V, count_V = predictable(self.sizes.vocabulary), trie.count[trie.layer(1)]
        seen_C, kinds_C = trie.sums(trie.count), np.diff(trie.first)
        kinds_C[0] = (count_V > 0).sum()  # the empty context has a node for every id, seen or not
        escapes_C = np.where(kinds_C < mask_V.sum(), kinds_C, 0)
        total_C, link_C = seen_C + escapes_C, trie.link[: trie.contexts]
        left_C = total_C[link_C] - trie.sums(trie.count[trie.link])
        with np.errstate(divide="ignore", invalid="ignore"):  # logs of 0, and contexts that nothing was seen after
            p_G = np.concatenate([[1.0], trie.count[1:] / trie.of_parents(total_C)])
            back_C = escapes_C / total_C * total_C[link_C] / left_C
            back_C[escapes_C == 0] = 0
            back_C[kinds_C == 0] = back_C[0] = 1
            unseen_V = mask_V & (count_V == 0)
            share = escapes_C[0] / total_C[0] if total_C[0] else 1.0
            p_G[1 : 1 + len(mask_V)][unseen_V] = share / max(unseen_V.sum(), 1)
            p_G[1 : 1 + len(mask_V)][~mask_V] = 0
            return Table(trie.symbol, trie.first, trie.link, np.log(p_G), np.log(back_C), np.zeros(0))

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().load(arrays)
        longer = slice(int(self.trie.layers[2]), None)
        if (self.trie.count[longer] > self.trie.count[self.trie.link[longer]]).any():
            raise CheckpointError("the saved counts give no probabilities: the file was edited, save the model again")
