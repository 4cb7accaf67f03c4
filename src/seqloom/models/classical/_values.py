"""The interface of classical models of real values: a normal distribution of every step given the steps before it.

    y_t ~ N(m_t, s_t)            m_t, s_t from y_1 .. y_{t-1} alone
    y_{t+h} ~ N(m_th, s_th)      h = 1 .. H steps ahead, from y_1 .. y_t alone

Values come scaled (data/features.py): the first P channels are predicted.
Shapes: N sequences, L steps of all, P predicted channels, H steps ahead.
"""

import math
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

LEAST = math.exp(-7.0)
"""Smallest scale, that of the networks' heads: a constant series would have an infinite density."""


class ValueModel(Component):
    """Base of every classical model of real values."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a classical model of values."""

    config: Any
    tasks: ClassVar[tuple[str, ...]] = ("values",)

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Keep the sizes and the options. ConfigError where there is no value to predict."""
        if not sizes.values:
            raise ConfigError(f"{type(self).__name__.lower()} predicts real values, and these data are symbols")
        self.sizes = sizes
        self.config = config if config is not None else type(self).Config()
        self.fitted = False

    def fit(self, ragged: Ragged, *, opens: Any = None, progress: Progress | None = None) -> None:
        """Learn from sequences of scaled values (L, C).

        Args:
            ragged: Training sequences.
            opens: False where one continues an earlier one: its first value is context alone; None = all open.
            progress: Where to tell how far it is.
        """
        self._learn(self._predicted(ragged), _flags(opens, len(ragged)), progress or Silent())
        self.fitted = True

    def moments(self, ragged: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (L, P) of every step given those before it in its sequence."""
        self._check_fitted()
        return self._moments(self._predicted(ragged))

    def following(self, ragged: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (N, P) of the step after each sequence."""
        self._check_fitted()
        own = self._predicted(ragged)
        longer = Ragged.of([np.concatenate([y, np.zeros((1, self.sizes.values))]) for y in own], np.float64)
        if not len(ragged):
            return np.zeros((0, self.sizes.values)), np.ones((0, self.sizes.values))
        mean_LP, scale_LP = self._moments(longer)
        return mean_LP[longer.offsets[1:] - 1], scale_LP[longer.offsets[1:] - 1]

    def ahead(self, ragged: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (N, H, P) of the next ``horizon`` values of each sequence, given what it holds alone."""
        self._check_fitted()
        if horizon < 1:
            raise ConfigError(f"a horizon has at least 1 step, not {horizon}")
        if not len(ragged):
            return np.zeros((0, horizon, self.sizes.values)), np.ones((0, horizon, self.sizes.values))
        return self._ahead(self._predicted(ragged), horizon)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learnt, as named arrays."""
        self._check_fitted()
        return {name: getattr(self, name) for name in self.learnt}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what ``arrays`` gave. CheckpointError where it does not fit together."""
        for name in self.learnt:
            found = np.asarray(arrays.get(name, ()), np.float64)
            want = self._shape_of(name, found)
            if found.shape != want or not np.isfinite(found).all() or (name.startswith("scale") and (found <= 0).any()):
                each = f"a number for each of {self.sizes.values} channels" if len(want) == 1 else f"numbers {want}"
                raise CheckpointError(f"a {type(self).__name__} needs {each}: {name}")
            setattr(self, name, found)
        self.fitted = True

    learnt: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays, which are attributes too."""

    def _shape_of(self, name: str, found: np.ndarray) -> tuple[int, ...]:
        """The shape that a saved array must have; ``found`` says what the data chose."""
        return (self.sizes.values,)

    @property
    def held_parameters(self) -> int:
        """Learnt numbers that the model keeps."""
        return sum(int(np.size(getattr(self, name))) for name in self.learnt)

    @abstractmethod
    def _learn(self, own: Ragged, opens_N: np.ndarray, progress: Progress) -> None:
        """Learn from the predicted channels (L, P)."""

    @abstractmethod
    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (L, P) of every step; only what lies before a step may be used for it."""

    @abstractmethod
    def _ahead(self, own: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (N, H, P) of what follows each sequence."""

    def _predicted(self, ragged: Ragged) -> Ragged:
        flat = np.asarray(ragged.flat, np.float64)[:, : self.sizes.values]
        return Ragged(flat, ragged.offsets - ragged.offsets[0])

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ConfigError(f"this {type(self).__name__} has learnt nothing yet: call fit, or load what was saved")


def first_steps(own: Ragged) -> np.ndarray:
    """True for the first step of every sequence (L,)."""
    first_L = np.zeros(own.total, bool)
    first_L[own.offsets[:-1][own.lengths > 0]] = True
    return first_L


def last_steps(own: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Last value (N, P) of every sequence, zeros where it has none, and which have one (N,)."""
    there_N = own.lengths > 0
    last_NP = np.zeros((len(own), own.values.shape[1]))
    last_NP[there_N] = own.flat[(own.offsets[1:] - own.offsets[0])[there_N] - 1]
    return last_NP, there_N


def spread(values_LP: np.ndarray) -> np.ndarray:
    """Root mean square of every channel (P,), at least ``LEAST``; 1 where there is nothing to measure."""
    if not len(values_LP):
        return np.ones(values_LP.shape[1])
    return np.maximum(np.sqrt(np.square(values_LP).mean(0)), LEAST)


def _flags(given: Any, count: int) -> np.ndarray:
    return np.ones(count, bool) if given is None else np.asarray(given, bool)
