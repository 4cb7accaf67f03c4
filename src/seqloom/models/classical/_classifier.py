"""The interface of classical models that tell classes apart: fit with labels, then log-probabilities of the classes.

Shapes: N sequences, C classes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from seqloom.core.component import Component
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress, Silent
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged


class ClassicalClassifier(Component):
    """Base of every classical classifier."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a classical classifier."""

        pseudocount: float = 0.5
        """Added to the count of every class, so that one without examples keeps some mass; above 0."""

    config: Any
    tasks: ClassVar[tuple[str, ...]] = ("classify",)

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Keep the sizes and the options. ConfigError without classes."""
        self.sizes = sizes
        self.config = config if config is not None else type(self).Config()
        if sizes.classes < 1:
            raise ConfigError("a classifier needs at least one class")
        if not self.config.pseudocount > 0:
            raise ConfigError(f"pseudocount must be above 0, not {self.config.pseudocount}")
        self.fitted = False
        self.count_C = np.zeros(sizes.classes, np.int64)

    def fit(
        self,
        ragged: Ragged,
        labels: Any,
        valid: tuple[Ragged, Any] | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Learn from sequences and their classes 0 .. C - 1.

        Args:
            ragged: Training sequences, ids without bos and eos.
            labels: One class a sequence.
            valid: Held-out sequences and their classes, for choosing alone.
            progress: Where to tell how far it is.
        """
        labels_N = self._labels(ragged, labels)
        held = None if valid is None or not len(valid[0]) else (valid[0], self._labels(*valid))
        self.count_C = np.bincount(labels_N, minlength=self.sizes.classes)
        self._learn(ragged, labels_N, held, progress or Silent())
        self.fitted = True

    @property
    def log_prior_C(self) -> np.ndarray:
        """Natural log of the smoothed share of each class."""
        share_C = self.count_C + self.config.pseudocount
        return np.log(share_C / share_C.sum())

    @abstractmethod
    def predict_log_proba(self, ragged: Ragged) -> np.ndarray:
        """Natural log-probability of every class, float64 (N, C)."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learnt, as named arrays."""

    @abstractmethod
    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what ``arrays`` gave. CheckpointError where it does not fit together."""

    @property
    @abstractmethod
    def held_parameters(self) -> int:
        """Learnt numbers that the model keeps."""

    @abstractmethod
    def _learn(
        self, ragged: Ragged, labels_N: np.ndarray, valid: tuple[Ragged, np.ndarray] | None, progress: Progress
    ) -> None:
        """Learn what the counts of the classes do not say."""

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ConfigError(f"this {type(self).__name__} has learnt nothing yet: call fit, or load what was saved")

    def _load_counts(self, arrays: Mapping[str, np.ndarray]) -> None:
        count_C = np.asarray(arrays.get("classes", ()), np.int64)
        if count_C.shape != (self.sizes.classes,) or (count_C < 0).any():
            raise CheckpointError(f"a classifier needs a count for each of {self.sizes.classes} classes: save it again")
        self.count_C = count_C

    def _labels(self, ragged: Ragged, labels: Any) -> np.ndarray:
        labels_N = np.asarray(labels, np.int64)
        if labels_N.shape != (len(ragged),):
            raise ConfigError(f"{len(ragged)} sequences have labels of the shape {labels_N.shape}; each needs one")
        if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < self.sizes.classes:
            raise ConfigError(f"labels run from {labels_N.min()} to {labels_N.max()}: there are {self.sizes.classes}")
        return labels_N
