"""Active LeZi: phrases of LZ78 say how far to look back, frequencies in a window of that length say what comes.

    phrase + x in the dictionary:  phrase <- phrase + x
    else:                          the dictionary takes phrase + x, phrase <- nothing
    window:                        the last D symbols, D the length of the longest phrase so far
    after every symbol:            each suffix of the window counts once

    p(w | h) = (c(h w) + (z(h) + m d(h)) p(w | h')) / (n(h) + z(h) + m d(h))        n(h) = sum_w c(h w)

h begins as the last D - 1 symbols and h' is h without its first; d(h) is the number of different symbols after h, and
z(h) = c(h) - n(h) the times that h was counted but what came after it was not, for the window was still too short.
That is the published blend with m = 0, which leaves nothing for what was never seen; m = 1 is PPM's escape method C.
Below the empty context lies the uniform distribution. The phrase and the window begin anew at each sequence's end;
<bos> and <eos> are symbols like any other, so that the beginning is a context.

Shapes: G nodes of the trie, C contexts among them, V vocabulary.
Source: Gopalratnam and Cook, "Active LeZi: an incremental parsing algorithm for sequential prediction", FLAIRS 2003,
and "Online sequential prediction via incremental parsing", IEEE Intelligent Systems 22(1), 2007.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.models.classical._backoff import BackoffModel, Table
from seqloom.models.classical._counts import predictable
from seqloom.models.classical._stream import Stream
from seqloom.models.classical._trie import Trie, build


class LeZi(BackoffModel):
    """Active LeZi; the longest phrase of the data is its order."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BackoffModel.Config):
        """Options of the phrases."""

        order: int = 10
        """The longest phrase that is looked for; in the published algorithm nothing bounds it."""
        choose: bool = False
        """With validation data, take the window up to the longest phrase that predicts it best; published: no."""
        escape: float = 1.0
        """m: how often each different symbol after a context counts as an escape; above 0."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where the order is below 1 or the escape is not positive."""
        super().__init__(sizes, config)
        if not self.config.escape > 0:
            raise ConfigError(f"escape must be above 0, not {self.config.escape}")

    def _count(self, stream: Stream, progress: Progress) -> Trie:
        since = _phrases(stream, self.sizes.vocabulary, self.config.order)
        return build(stream, self.sizes.vocabulary, len(since), progress, since)

    def _table(self, trie: Trie) -> Table:
        mask_V = predictable(self.sizes.vocabulary)
        seen_C, kinds_C = trie.sums(trie.count), np.diff(trie.first)
        kinds_C[0] = (trie.count[trie.layer(1)] > 0).sum()  # the empty context has a node for every id, seen or not
        # the first symbol of a sequence is input alone: it has successors without having been counted
        escapes_C = np.maximum(trie.count[: trie.contexts] - seen_C, 0) + self.config.escape * kinds_C
        total_C = seen_C + escapes_C
        empty_C = total_C == 0
        total_C[empty_C], escapes_C[empty_C] = 1, 1
        back_C = escapes_C / total_C
        own_G = np.concatenate([[0.0], trie.count[1:] / trie.of_parents(total_C)])
        back_G = np.concatenate([[1.0], trie.of_parents(back_C)])
        p_G = np.ones(len(own_G))
        for n in range(1, trie.order + 1):
            here = trie.layer(n)
            below = mask_V / mask_V.sum() if n == 1 else p_G[trie.link[here]]
            p_G[here] = own_G[here] + back_G[here] * below
        with np.errstate(divide="ignore"):  # <bos> and its kin have probability 0
            return Table(trie.symbol, trie.first, trie.link, np.log(p_G), np.log(back_C), np.zeros(0))

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().load(arrays)
        if not np.isfinite(self.table.log_back).all():
            raise CheckpointError("the saved counts give no probabilities: the file was edited, save the model again")


def _phrases(stream: Stream, vocabulary: int, longest: int) -> list[int]:
    """The places where the longest phrase so far became 1, 2, .. symbols long, up to ``longest``."""
    since = [0]
    dictionary: dict[int, int] = {}
    ends = set(stream.offsets[1:].tolist())
    phrase, length = 0, 0
    for at, token in enumerate(stream.tokens.tolist()):
        if at in ends:
            phrase, length = 0, 0
        key = phrase * vocabulary + token
        length += 1
        if key in dictionary:
            phrase = dictionary[key]
            continue
        dictionary[key] = len(dictionary) + 1
        if length > len(since):
            since.append(at)
            if length == longest:
                break
        phrase, length = 0, 0
    return since[:longest]
