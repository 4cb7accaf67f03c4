"""Exponential smoothing: a level, a damped trend and a season that follow the series, each at its own pace.

    m_t = l + f b + s_{t-m}        e = y_t - m_t        variance of h steps: s^2 (1 + sum_{j<h} c_j^2)
    l <- l + f b + alpha e         b <- f b + beta e         s_t <- s_{t-m} + gamma e
    c_j = alpha + beta (f + .. + f^j) + gamma [m divides j]

The state begins with the first season (m = 1: the first value), and until then the forecast is the last value: no
step is told by what comes after it. The paces are those with the least squared error on the training part, shared over
the series of a channel, so that a new series of a few steps is forecast, too.
Shapes: N sequences, L steps, H steps ahead, P predicted channels, M steps of a season.
Source: Hyndman, Koehler, Ord and Snyder, "Forecasting with exponential smoothing: the state space approach", 2008,
sections 2.5 and 6.2: ETS(A,Ad,A), and without a season ETS(A,Ad,N).
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._season import period_of
from seqloom.models.classical._values import LEAST, ValueModel, first_steps, spread

STEPS = 100_000
"""Most training steps that the paces are chosen on."""
STARTS = ((0.9, 0.0, 0.0, 1.0), (0.5, 0.0, 0.1, 1.0), (0.1, 0.0, 0.1, 1.0), (0.8, 0.1, 0.1, 0.9), (0.3, 0.3, 0.3, 0.9))
"""Where the search begins: alpha, beta / alpha, gamma / (1 - alpha) and the damping, from 0.8 to 1."""
FINEST = 0.005


class ExponentialSmoothing(ValueModel):
    """Level, damped trend and season; ``period`` says how long the season is, ``pace_P4`` how fast each follows."""

    learnt = ("period", "pace_P4", "mean_P", "scale_first_P", "scale_walk_P", "scale_P")

    @dataclass(frozen=True, kw_only=True)
    class Config(ValueModel.Config):
        """What the state holds."""

        period: int = 0
        """Steps of a season; 0 = found in the training part, 1 = no season."""
        trend: bool = True
        """Follow a damped trend, too."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError for a negative period."""
        super().__init__(sizes, config)
        if self.config.period < 0:
            raise ConfigError(f"a season has at least 1 step, or 0 for a guess, not {self.config.period}")
        self.period = np.ones(1)

    def load(self, arrays: Any) -> None:
        super().load(arrays)
        if self.period[0] < 1 or self.period[0] % 1 or (self.pace_P4 < 0).any() or (self.pace_P4 > 1).any():
            raise CheckpointError("the paces of a smoothing lie between 0 and 1, its season has whole steps")

    def _shape_of(self, name: str, found: np.ndarray) -> tuple[int, ...]:
        own = {"period": (1,), "pace_P4": (self.sizes.values, 4)}
        return own.get(name) or super()._shape_of(name, found)

    def _learn(self, own: Ragged, valid: Ragged | None, opens_N: np.ndarray, progress: Progress) -> None:
        self.period = np.array([self.config.period or period_of(own)], np.float64)
        self.mean_P = own.flat.mean(0) if own.total else np.zeros(self.sizes.values)
        self.scale_first_P = spread(own.flat - self.mean_P)
        self.scale_walk_P = spread(np.diff(own.flat, axis=0, prepend=0.0)[~first_steps(own)])
        some = own[: max(1, int(np.searchsorted(np.cumsum(own.lengths), STEPS)))]
        channels = range(self.sizes.values)
        paces = [_search(some.flat[:, at], some.offsets - some.offsets[0], self._steps, self.config.trend) for at in channels]
        self.pace_P4 = np.stack(paces)
        errors = [_run(own.flat[:, at], own.offsets - own.offsets[0], self._steps, pace) for at, pace in enumerate(paces)]
        counted = [(error, count) for _, error, count in errors]
        scale_P = [np.sqrt(error / count) if count else walk for (error, count), walk in zip(counted, self.scale_walk_P, strict=True)]
        self.scale_P = np.maximum(np.array(scale_P), LEAST)

    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        offsets, first_L = own.offsets - own.offsets[0], first_steps(own)
        columns = [_run(own.flat[:, at], offsets, self._steps, pace)[0] for at, pace in enumerate(self.pace_P4)]
        mean_LP = np.stack(columns, 1)
        begin_L = np.repeat(offsets[:-1], own.lengths)
        warm_L1 = (np.arange(own.total) - begin_L >= self._steps)[:, None]
        scale_LP = np.where(warm_L1, self.scale_P, self.scale_walk_P)
        mean_LP[first_L], scale_LP[first_L] = self.mean_P, self.scale_first_P
        return mean_LP, scale_LP
