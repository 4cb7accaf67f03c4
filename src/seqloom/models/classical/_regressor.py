"""The interface of classical models that tell a number after every event: quantiles of it, given what happened so far.

    q_t(p) = value below which the share p of the numbers lies that training saw after what is like x_1 .. x_t

Numbers come in their own unit. Before the first event (t = 0) the number is that after it: all of it remains.
Shapes: N sequences, L events of all, M = L + N prefixes (the empty one of each sequence first), G levels that are kept,
Q levels that are asked for.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from seqloom.core.component import Component
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress, Silent
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged

LEVELS = np.arange(1, 20) / 20
"""Quantiles that are kept; between two of them the rest is interpolated."""


class ClassicalRegressor(Component):
    """Base of every classical model that tells a number after every event."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a classical regressor."""

    config: Any
    tasks: ClassVar[tuple[str, ...]] = ("regress",)

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Keep the sizes and the options. ConfigError where there is no number to tell."""
        self.sizes = sizes
        self.config = config if config is not None else type(self).Config()
        if sizes.targets != 1:
            raise ConfigError(f"{type(self).__name__} tells one number after every event, not {sizes.targets}")
        self.fitted = False

    def fit(
        self,
        ragged: Ragged,
        numbers: Ragged,
        valid: tuple[Ragged, Ragged] | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Learn from sequences and the number after each of their events.

        Args:
            ragged: Training sequences, ids without bos and eos.
            numbers: One number an event, NaN where nobody knows it.
            valid: Held-out sequences and their numbers, for choosing among options alone.
            progress: Where to tell how far it is.
        """
        told_M = self._checked(ragged, numbers)
        if not np.isfinite(told_M).any():
            raise ConfigError("there is no number to learn from")
        held = None if valid is None or not valid[0].total else (valid[0], self._checked(*valid))
        self._learn(ragged, told_M, held, progress or Silent())
        self.fitted = True

    def quantiles(self, ragged: Ragged, levels: Sequence[float]) -> np.ndarray:
        """Quantiles after every event (L, Q), float64."""
        return self._asked(ragged, levels)[~opening(ragged)]

    def following(self, ragged: Ragged, levels: Sequence[float]) -> np.ndarray:
        """Quantiles after each whole sequence (N, Q), an empty one included."""
        return self._asked(ragged, levels)[np.cumsum(ragged.lengths + 1) - 1]

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learnt, as named arrays."""

    @abstractmethod
    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what ``arrays`` gave. CheckpointError where it does not fit together."""

    @property
    def held_parameters(self) -> int:
        """Learnt numbers that the model keeps."""
        return sum(array.size for array in self.arrays().values())

    @abstractmethod
    def _learn(
        self, ragged: Ragged, told_M: np.ndarray, valid: tuple[Ragged, np.ndarray] | None, progress: Progress
    ) -> None:
        """Learn from sequences and the number after each of their prefixes."""

    @abstractmethod
    def _told(self, ragged: Ragged) -> np.ndarray:
        """Quantiles at ``LEVELS`` after every prefix (M, G)."""

    def _asked(self, ragged: Ragged, levels: Sequence[float]) -> np.ndarray:
        self._check_fitted()
        asked_Q = np.asarray(levels, np.float64)
        if len(asked_Q) and not LEVELS[0] - 1e-9 <= asked_Q.min() <= asked_Q.max() <= LEVELS[-1] + 1e-9:
            raise ConfigError(f"quantiles from {LEVELS[0]:g} to {LEVELS[-1]:g} are kept, not {list(levels)}")
        place_Q = np.clip((asked_Q - LEVELS[0]) / (LEVELS[1] - LEVELS[0]), 0, len(LEVELS) - 1)
        low_Q = np.minimum(place_Q.astype(np.int64), len(LEVELS) - 2)
        told_MG = self._told(ragged)
        return told_MG[:, low_Q] + (place_Q - low_Q) * (told_MG[:, low_Q + 1] - told_MG[:, low_Q])

    def _checked(self, ragged: Ragged, numbers: Ragged) -> np.ndarray:
        """The number after every prefix (M,)."""
        if not np.array_equal(ragged.lengths, numbers.lengths):
            raise ConfigError("every event needs one number: the lengths of sequences and numbers differ")
        first_M = opening(ragged)
        told_M = np.full(len(first_M), np.nan)
        told_M[~first_M] = numbers.flat
        at = np.flatnonzero(first_M)
        told_M[at] = told_M[np.minimum(at + 1, len(told_M) - 1)]
        told_M[at[ragged.lengths == 0]] = np.nan
        return told_M

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ConfigError(f"this {type(self).__name__} has learnt nothing yet: call fit, or load what was saved")


def opening(ragged: Ragged) -> np.ndarray:
    """True for the empty prefix of every sequence (M,)."""
    first_M = np.zeros(ragged.total + len(ragged), bool)
    first_M[np.cumsum(ragged.lengths + 1) - ragged.lengths - 1] = True
    return first_M


def grouped(told_M: np.ndarray, state_M: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """States with at least so many numbers (S,), and the quantiles of these at ``LEVELS`` (S, G)."""
    known_M = np.isfinite(told_M)
    told_M, state_M = told_M[known_M], state_M[known_M]
    order_M = np.lexsort((told_M, state_M))
    told_M, (state_S, begin_S, count_S) = told_M[order_M], np.unique(state_M[order_M], True, False, True)
    kept = count_S >= max(least, 1)
    place_SG = LEVELS * (count_S[kept, None] - 1)
    low_SG = place_SG.astype(np.int64)
    low, high = (told_M[begin_S[kept, None] + at] for at in (low_SG, np.ceil(place_SG).astype(np.int64)))
    return state_S[kept], low + (place_SG - low_SG) * (high - low)


def held(arrays: Mapping[str, np.ndarray], name: str, width: int) -> np.ndarray:
    """A saved table of so many finite columns. CheckpointError where it is none."""
    found = np.asarray(arrays.get(name, ()))
    if found.ndim != 2 or found.shape[1] != width or not np.isfinite(found).all():
        raise CheckpointError(f"{name} must be a table of {width} columns, not {found.shape}: save the model again")
    return found
