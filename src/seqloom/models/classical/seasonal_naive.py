"""Seasonal naive: the next value is the one of a season ago; the forecast that a model must beat to be worth anything.

    y_{t+h} ~ N(y_{t+h-km}, s sqrt(k))        k = ceil(h / m): the least number of seasons that leads back to the past

A season that nobody names is looked for in the training part; without one (m = 1) it is a random walk, which also
answers as long as a sequence is shorter than a season.
Shapes: N sequences, L steps, H steps ahead, P predicted channels.
Source: Hyndman and Athanasopoulos, "Forecasting: principles and practice", 2021, section 5.2 and 5.5.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._season import period_of
from seqloom.models.classical._values import ValueModel, first_steps, last_steps, spread


class SeasonalNaive(ValueModel):
    """The value of a season ago, with the spread of the changes from season to season; ``period`` says how long."""

    learnt = ("period", "mean_P", "scale_first_P", "scale_walk_P", "scale_P")

    @dataclass(frozen=True, kw_only=True)
    class Config(ValueModel.Config):
        """How long a season is."""

        period: int = 0
        """Steps of a season; 0 = found in the training part, 1 where there is none."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError for a negative period."""
        super().__init__(sizes, config)
        if self.config.period < 0:
            raise ConfigError(f"a season has at least 1 step, or 0 for a guess, not {self.config.period}")
        self.period = np.ones(1)

    def load(self, arrays: dict[str, np.ndarray]) -> None:  # type: ignore[override]
        super().load(arrays)
        if self.period[0] < 1 or self.period[0] % 1:
            raise CheckpointError(f"a season of {self.period[0]} steps is none")

    def _shape_of(self, name: str, found: np.ndarray) -> tuple[int, ...]:
        return (1,) if name == "period" else super()._shape_of(name, found)

    def _learn(self, own: Ragged, opens_N: np.ndarray, progress: Progress) -> None:
        self.period = np.array([self.config.period or period_of(own)], np.float64)
        self.mean_P = own.flat.mean(0) if own.total else np.zeros(self.sizes.values)
        self.scale_first_P = spread(own.flat - self.mean_P)
        self.scale_walk_P, self.scale_P = (spread(_changes(own, lag)) for lag in (1, self._steps))
        if not (own.lengths > self._steps).any():
            self.scale_P = self.scale_walk_P  # no season was ever seen to end

    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        first_L = first_steps(own)
        at_L = np.arange(own.total)
        begin_L = np.repeat(own.offsets[:-1] - own.offsets[0], own.lengths)
        whole_L1 = (at_L - begin_L >= self._steps)[:, None]
        mean_LP = np.where(whole_L1, own.flat[at_L - self._steps], own.flat[at_L - 1])
        scale_LP = np.where(whole_L1, self.scale_P, self.scale_walk_P)
        mean_LP[first_L], scale_LP[first_L] = self.mean_P, self.scale_first_P
        return mean_LP, scale_LP

    def _ahead(self, own: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        last_NP, there_N = last_steps(own)
        step_H = np.arange(horizon)
        walked_HP = np.sqrt(step_H + 1)[:, None] * self.scale_walk_P
        first_HP = np.sqrt(self.scale_first_P**2 + walked_HP**2 - self.scale_walk_P**2)
        mean_NP = np.where(there_N[:, None], last_NP, self.mean_P)
        mean_NHP = np.repeat(mean_NP[:, None], horizon, 1)
        scale_NHP = np.where(there_N[:, None, None], walked_HP, first_HP)
        seasonal_HP = np.sqrt(step_H // self._steps + 1)[:, None] * self.scale_P
        for number in np.flatnonzero(own.lengths >= self._steps).tolist():
            mean_NHP[number] = own[number][-self._steps :][step_H % self._steps]
            scale_NHP[number] = seasonal_HP
        return mean_NHP, scale_NHP

    @property
    def _steps(self) -> int:
        return int(self.period[0])


def _changes(own: Ragged, lag: int) -> np.ndarray:
    """Differences at a lag within every sequence."""
    changes = [y[lag:] - y[:-lag] for y in own if len(y) > lag]
    return np.concatenate(changes) if changes else own.flat[:0]
