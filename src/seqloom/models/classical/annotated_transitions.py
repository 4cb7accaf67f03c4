"""A transition system whose states are annotated with the numbers that training saw in them.

    state_k(x_1 .. x_t) = the last k symbols, in order (sequence), how often each (bag), or which ones (set)
    q_t(p) = quantile p of the training numbers of the longest state, k <= K, in which there are at least m of them

A history that reaches back beyond the first symbol knows it: <bos> stands there. The source annotates with the mean;
the median is what has the least absolute error, and the quantiles around it are the interval. K is chosen on
validation data where it is not given: a long history has few numbers, and they scatter.
Shapes: M prefixes, V vocabulary, S states of one k, G levels that are kept.
Source: van der Aalst, Schonenberg and Song, "Time prediction based on process mining", 2011, for states, horizons and
annotations; the shorter histories are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.models.classical._regressor import LEVELS, ClassicalRegressor, grouped, held

CHOICES = (0, 1, 2, 3, 4, 6, 8)
"""Histories that are tried on the validation part."""
USUAL = 3
"""The history where there is no validation part."""
MIDDLE = len(LEVELS) // 2


class AnnotatedTransitions(ClassicalRegressor):
    """Quantiles of the numbers after the same last symbols."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalRegressor.Config):
        """What a state is."""

        history: int | None = None
        """K, the most last symbols that a state remembers; None = chosen on validation data."""
        least: int = 10
        """m, numbers that a state needs to be believed; with fewer a shorter history speaks."""
        states: Literal["sequence", "bag", "set"] = "sequence"
        """What of the last symbols counts: their order, how often each came, or only which ones."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError without symbols, or for a history below 0."""
        super().__init__(sizes, config)
        if sizes.vocabulary <= SPECIALS.count:
            raise ConfigError(f"annotated_transitions needs symbols: a vocabulary of {sizes.vocabulary} has none")
        if (self.config.history or 0) < 0 or self.config.least < 1:
            raise ConfigError(f"history must be at least 0 and least at least 1, not {self.config}")
        self.history_SK: list[np.ndarray] = []
        self.quantiles_SG: list[np.ndarray] = []

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        tables = {f"quantiles{k}": table for k, table in enumerate(self.quantiles_SG)}
        return tables | {f"history{k}": table for k, table in enumerate(self.history_SK)}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        count = sum(name.startswith("quantiles") for name in arrays)
        self.quantiles_SG = [held(arrays, f"quantiles{k}", len(LEVELS)).astype(np.float64) for k in range(count)]
        self.history_SK = [held(arrays, f"history{k}", k).astype(np.int64) for k in range(count)]
        if not count or any(len(h) != len(q) for h, q in zip(self.history_SK, self.quantiles_SG, strict=True)):
            raise CheckpointError("the saved states do not fit their quantiles: save the model again")
        if len(self.quantiles_SG[0]) != 1:
            raise CheckpointError("the saved model lacks the quantiles of all numbers: save it again")
        self.fitted = True

    def _learn(
        self, ragged: Ragged, told_M: np.ndarray, valid: tuple[Ragged, np.ndarray] | None, progress: Progress
    ) -> None:
        given = self.config.history
        most = given if given is not None else CHOICES[-1] if valid is not None else USUAL
        self.history_SK, self.quantiles_SG = [], []
        for k in range(most + 1):
            rows_MK = self._histories(ragged, k)
            number_M = _numbered(rows_MK, self.sizes.vocabulary)
            first_S = np.unique(number_M, return_index=True)[1]
            state_S, quantiles_SG = grouped(told_M, number_M, self.config.least if k else 1)
            self.history_SK.append(rows_MK[first_S[state_S]])
            self.quantiles_SG.append(quantiles_SG)
        if given is None and valid is not None:
            self._shorten(*valid)

    def _shorten(self, ragged: Ragged, told_M: np.ndarray) -> None:
        """Keep the history with the least mean absolute error of the median; of equal ones the shortest."""
        tried = CHOICES if np.isfinite(told_M).any() else (USUAL,)
        error = {k: np.nansum(np.abs(self._of(ragged, k)[:, MIDDLE] - told_M)) for k in tried}
        best = min(tried, key=lambda k: error[k])
        self.history_SK, self.quantiles_SG = self.history_SK[: best + 1], self.quantiles_SG[: best + 1]

    def _told(self, ragged: Ragged) -> np.ndarray:
        return self._of(ragged, len(self.quantiles_SG) - 1)

    def _of(self, ragged: Ragged, most: int) -> np.ndarray:
        """Quantiles after every prefix (M, G) by histories of at most so many symbols."""
        told_MG = np.repeat(self.quantiles_SG[0], ragged.total + len(ragged), 0)
        for k in range(1, most + 1):
            known_SK, rows_MK = self.history_SK[k], self._histories(ragged, k)
            number = _numbered(np.concatenate([known_SK, rows_MK]), self.sizes.vocabulary)
            state = np.full(number.max(initial=-1) + 1, -1)
            state[number[: len(known_SK)]] = np.arange(len(known_SK))
            state_M = state[number[len(known_SK) :]]
            told_MG[state_M >= 0] = self.quantiles_SG[k][state_M[state_M >= 0]]
        return told_MG

    def _histories(self, ragged: Ragged, k: int) -> np.ndarray:
        """What a state of ``k`` symbols remembers of every prefix (M, k)."""
        rows_MK = histories(ragged, k)
        if self.config.states == "sequence":
            return rows_MK
        rows_MK = np.sort(rows_MK, 1)
        if self.config.states == "set":
            again_MK = np.diff(rows_MK, axis=1, prepend=-1) == 0
            rows_MK = np.sort(np.where(again_MK, SPECIALS.pad, rows_MK), 1)
        return rows_MK


def histories(ragged: Ragged, k: int) -> np.ndarray:
    """The last ``k`` symbols of every prefix (M, k), <bos> before the first of a sequence."""
    lengths_N = ragged.lengths
    begin_N = np.cumsum(lengths_N + k) - lengths_N - k
    padded = np.full(int((lengths_N + k).sum()), SPECIALS.bos, np.int64)
    event_L = np.arange(ragged.total) - np.repeat(np.cumsum(lengths_N) - lengths_N, lengths_N)
    padded[np.repeat(begin_N + k, lengths_N) + event_L] = ragged.flat
    empty_N = np.cumsum(lengths_N + 1) - lengths_N - 1
    prefix_M = np.arange(ragged.total + len(ragged)) - np.repeat(empty_N, lengths_N + 1)
    return padded[(np.repeat(begin_N, lengths_N + 1) + prefix_M)[:, None] + np.arange(k)]


def _numbered(rows_MK: np.ndarray, vocabulary: int) -> np.ndarray:
    """A number for every row (M,), the same for equal rows, from 0 without gaps."""
    number_M = np.zeros(len(rows_MK), np.int64)
    for column_M in rows_MK.T:
        number_M = np.unique(number_M * vocabulary + column_M, return_inverse=True)[1]
    return number_M
