"""Unigram: every symbol by itself, the trivial baseline of next-symbol prediction.

    p(w) = (c(w) + a) / (n + a |A|)

c(w) counts the predicted tokens, the end symbol included; A holds the ordinary symbols, <eos> and <unk>.
Shapes: B rows, V vocabulary.
Source: Krichevsky and Trofimov, "The performance of universal encoding", 1981, for a = 1/2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._counts import predicted_counts, smoothed
from seqloom.models.classical._stream import Stream


class Unigram(ClassicalModel):
    """Frequencies of the symbols, whatever came before."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalModel.Config):
        """Options of the frequencies."""

        pseudocount: float = 0.5
        """Added to the count of every symbol, so that unseen ones keep some mass; above 0."""

    reach = 0

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where the pseudocount is not positive."""
        super().__init__(sizes, config)
        if not self.config.pseudocount > 0:
            raise ConfigError(f"pseudocount must be above 0, not {self.config.pseudocount}")
        self.count_V = np.zeros(sizes.vocabulary, np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        return {"count": self.count_V}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        count_V = np.asarray(arrays.get("count", ()), np.int64)
        if count_V.shape != (self.sizes.vocabulary,) or (count_V < 0).any():
            raise CheckpointError(f"a unigram needs a count for each of {self.sizes.vocabulary} ids: save it again")
        self._keep(count_V)
        self.fitted = True

    @property
    def held_parameters(self) -> int:
        return self.sizes.vocabulary - len(SPECIALS.unpredictable)

    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        self._keep(predicted_counts(stream, self.sizes.vocabulary))

    def _keep(self, count_V: np.ndarray) -> None:
        self.count_V, self.log_V = count_V, smoothed(count_V, self.config.pseudocount)

    def _start(self, rows: int) -> np.ndarray:
        return np.zeros((rows, 0))

    def _read(self, memory_BM: np.ndarray, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
        return np.zeros((*tokens_BT.shape, 0))

    def _log_probs(self, memory_BM: np.ndarray) -> np.ndarray:
        return np.tile(self.log_V, (len(memory_BM), 1))

    def _score(self, stream: Stream) -> np.ndarray:
        return self.log_V[stream.tokens]
