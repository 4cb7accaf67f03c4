"""Majority: the classes' shares, whatever the sequence; the trivial baseline of classification.

    p(k) = (n_k + a) / (N + a C)

Shapes: N sequences, C classes.
Source: Holte, "Very simple classification rules perform well on most commonly used datasets", 1993 (rule 0R).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqloom.core.protocols import Progress
from seqloom.data.ragged import Ragged
from seqloom.models.classical._classifier import ClassicalClassifier


class Majority(ClassicalClassifier):
    """The most frequent class, with the shares of all as probabilities."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalClassifier.Config):
        """Options of the shares."""

    def predict_log_proba(self, ragged: Ragged) -> np.ndarray:
        self._check_fitted()
        return np.tile(self.log_prior_C, (len(ragged), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        return {"classes": self.count_C}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._load_counts(arrays)
        self.fitted = True

    @property
    def held_parameters(self) -> int:
        return self.sizes.classes

    def _learn(
        self, ragged: Ragged, labels_N: np.ndarray, valid: tuple[Ragged, np.ndarray] | None, progress: Progress
    ) -> None:
        """The counts of the classes are all."""
