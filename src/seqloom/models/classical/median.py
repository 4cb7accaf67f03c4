"""Median: the same number after every event, whatever the sequence; the trivial baseline of regression.

    q(p) = value below which the share p of all training numbers lies        the prediction is q(1/2)

Of all constants the median has the least mean absolute error, and its 10 % and 90 % quantiles hold 80 of 100 numbers.
Shapes: N sequences, M prefixes, G levels that are kept.
Source: Koenker and Bassett, "Regression quantiles", 1978, section 1 (without regressors).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqloom.core.protocols import Progress
from seqloom.data.ragged import Ragged
from seqloom.models.classical._regressor import LEVELS, ClassicalRegressor, grouped, held


class Median(ClassicalRegressor):
    """Quantiles of all training numbers."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalRegressor.Config):
        """There is nothing to choose."""

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        return {"quantiles": self.quantiles_1G}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.quantiles_1G = held(arrays, "quantiles", len(LEVELS)).astype(np.float64)[:1]
        self.fitted = True

    def _learn(
        self, ragged: Ragged, told_M: np.ndarray, valid: tuple[Ragged, np.ndarray] | None, progress: Progress
    ) -> None:
        self.quantiles_1G = grouped(told_M, np.zeros(len(told_M), np.int64), 1)[1]

    def _told(self, ragged: Ragged) -> np.ndarray:
        return np.repeat(self.quantiles_1G, ragged.total + len(ragged), 0)
