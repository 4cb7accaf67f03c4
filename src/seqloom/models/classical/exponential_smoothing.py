"""Exponential smoothing: a level, a damped trend and a season that follow the series, each at its own pace.

    m_t = l + f b + s_{t-m}        e = y_t - m_t        variance of h steps: s^2 (1 + sum_{j<h} c_j^2)
    l <- l + f b + alpha e         b <- f b + beta e         s_t <- s_{t-m} + gamma e
    c_j = alpha + beta (f + .. + f^j) + gamma [m divides j]

The state begins with the first season (m = 1: the first value), and until then the forecast is the last value: no
step is told by what comes after it. The paces are those with the least squared error on the training part, averaged
over the next ``horizon`` steps (1: the usual one-step error), shared over the series of a channel, so that a new series
of a few steps is forecast, too. What follows best one step ahead can be worse than any season 48 steps ahead.
Shapes: N sequences, L steps, H steps ahead, P predicted channels, M steps of a season.
Source: Hyndman, Koehler, Ord and Snyder, "Forecasting with exponential smoothing: the state space approach", 2008,
sections 2.5 and 6.2: ETS(A,Ad,A), and without a season ETS(A,Ad,N); 5.1 for the average over several steps (AMSE).
"""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._season import period_of
from seqloom.models.classical._values import LEAST, ValueModel, first_steps, last_steps, spread

STEPS = 100_000
"""Most training steps that the paces are chosen on."""
STARTS = ((0.9, 0.0, 0.0, 1.0), (0.5, 0.0, 0.1, 1.0), (0.1, 0.0, 0.1, 1.0), (0.8, 0.1, 0.1, 0.5), (0.3, 0.3, 0.3, 0.5))
"""Where the search begins: alpha, beta / alpha, gamma / (1 - alpha), and the damping, 0.8 at 0 and none at 1."""
FINEST = 0.005
ORIGINS = 4
"""A forecast of H steps is tried from every H / 4th step of the training part."""


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
        horizon: int = 1
        """Steps ahead over which the squared error is averaged when the paces are chosen."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError for a negative period, or a horizon of nothing."""
        super().__init__(sizes, config)
        if self.config.horizon < 1:
            raise ConfigError(f"a horizon has at least 1 step, not {self.config.horizon}")
        if self.config.period < 0:
            raise ConfigError(f"a season has at least 1 step, or 0 for a guess, not {self.config.period}")
        self.period = np.ones(1)

    def load(self, arrays: Any) -> None:
        super().load(arrays)
        if self.period[0] < 1 or self.period[0] % 1 or (self.pace_P4 < 0).any() or (self.pace_P4 > 1).any():
            raise CheckpointError("the paces of a smoothing lie between 0 and 1, its season has whole steps")

    def _shape_of(self, name: str, found: np.ndarray) -> tuple[int, ...]:
        own = {"period": (1,), "pace_P4": (self.sizes.values, 4)}
        return own.get(name, super()._shape_of(name, found))

    def _learn(self, own: Ragged, opens_N: np.ndarray, progress: Progress) -> None:
        self.period = np.array([self.config.period or period_of(own)], np.float64)
        self.mean_P = own.flat.mean(0) if own.total else np.zeros(self.sizes.values)
        self.scale_first_P = spread(own.flat - self.mean_P)
        self.scale_walk_P = spread(np.diff(own.flat, axis=0, prepend=0.0)[~first_steps(own)])
        some = own[: max(1, int(np.searchsorted(np.cumsum(own.lengths), STEPS)))]
        channels = range(self.sizes.values)
        self.pace_P4 = np.stack([self._search(some, at) for at in channels])
        scales = [_root(*self._followed(own, at)[1:3], otherwise=self.scale_walk_P[at]) for at in channels]
        self.scale_P = np.array(scales)

    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        first_L = first_steps(own)
        mean_LP = np.stack([self._followed(own, at)[0] for at in range(self.sizes.values)], 1)
        begin_L = np.repeat(own.offsets[:-1] - own.offsets[0], own.lengths)
        warm_L1 = (np.arange(own.total) - begin_L >= self._steps)[:, None]
        scale_LP = np.where(warm_L1, self.scale_P, self.scale_walk_P)
        mean_LP[first_L], scale_LP[first_L] = self.mean_P, self.scale_first_P
        return mean_LP, scale_LP

    def _ahead(self, own: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        last_NP, there_N = last_steps(own)
        warm_N1, step_H = (own.lengths >= self._steps)[:, None], np.arange(1, horizon + 1)
        means, scales = [], []
        for channel, (alpha, beta, gamma, damping) in enumerate(self.pace_P4):
            state_NS = self._followed(own, channel)[3]
            damped_H = np.cumsum(damping**step_H)
            season_NH = np.take_along_axis(state_NS[:, 2:], (own.lengths[:, None] + step_H - 1) % self._steps, 1)
            told_NH = state_NS[:, :1] + damped_H * state_NS[:, 1:2] + season_NH
            known_N1 = np.where(there_N, last_NP[:, channel], self.mean_P[channel])[:, None]
            means.append(np.where(warm_N1, told_NH, known_N1))
            moved_H = alpha + beta * damped_H + gamma * (step_H % self._steps == 0)
            grown_H = self.scale_P[channel] * np.sqrt(1 + np.cumsum(moved_H**2) - moved_H**2)
            walked_H = self.scale_walk_P[channel] * np.sqrt(step_H)
            first_H = np.sqrt(self.scale_first_P[channel] ** 2 + walked_H**2 - self.scale_walk_P[channel] ** 2)
            scales.append(np.where(warm_N1, grown_H, np.where(there_N[:, None], walked_H, first_H)))
        return np.stack(means, 2), np.stack(scales, 2)

    def _followed(self, own: Ragged, channel: int) -> tuple[np.ndarray, float, int, np.ndarray]:
        """See ``_follow``, with the channel's pace."""
        return _followed(own, channel, self._steps, self.pace_P4[channel])[:4]

    def _search(self, own: Ragged, channel: int) -> np.ndarray:
        """The pace with the least squared error: the best start, then steps along each axis that halve."""
        trend, season, horizon = self.config.trend, self._steps > 1, self.config.horizon
        free = [0, *([1, 3] if trend else []), *([2] if season else [])]

        def pace(place_4: np.ndarray) -> np.ndarray:
            a, b, c, d = place_4
            return np.array([a, a * b * trend, (1 - a) * c * season, 0.8 + 0.2 * d])

        def error(place_4: np.ndarray) -> float:
            return _followed(own, channel, self._steps, pace(place_4), horizon)[4]

        best = min((np.array(start) for start in STARTS), key=error)
        least, step = error(best), 0.2
        while step > FINEST:
            moves = [np.clip(best + sign * step * np.eye(4)[axis], 0, 1) for axis in free for sign in (1, -1)]
            found = [error(move) for move in moves]
            if min(found) < least * (1 - 1e-9):
                best, least = moves[int(np.argmin(found))], min(found)
            else:
                step /= 2
        return pace(best)

    @property
    def _steps(self) -> int:
        return int(self.period[0])


def _followed(
    own: Ragged, channel: int, period: int, pace_4: np.ndarray, horizon: int = 1
) -> tuple[np.ndarray, float, int, np.ndarray, float]:
    """What ``_follow`` fills and finds: means (L,), error and count, last states (N, 2 + M), error over the horizon."""
    mean_L, state_NS = np.zeros(own.total), np.zeros((len(own), 2 + period))
    flat_L, offsets_N = np.ascontiguousarray(own.flat[:, channel]), own.offsets - own.offsets[0]
    damped_H = np.cumsum(pace_4[3] ** np.arange(1, horizon + 1))
    error, count, far = _follow(flat_L, offsets_N, period, pace_4, damped_H, mean_L, state_NS)
    return mean_L, error, count, state_NS, far


def _root(error: float, count: int, *, otherwise: float) -> float:
    return max(math.sqrt(error / count), LEAST) if count else otherwise


@numba.njit(cache=True, nogil=True)
def _follow(y_L, offsets_N, period, pace_4, damped_H, mean_L, state_NS):
    """Fill the means and the last states; return the squared error behind the first season, of how many, and far ahead.

    The third is the mean squared error of forecasts of up to H steps (fewer at the end), from origins H / 4 apart.
    """
    alpha, beta, gamma, damping = pace_4
    horizon = len(damped_H)
    stride = max(1, horizon // ORIGINS)
    error, count, far, tried = 0.0, 0, 0.0, 0
    for n in range(len(offsets_N) - 1):
        begin, end, level, slope = offsets_N[n], offsets_N[n + 1], 0.0, 0.0
        for at in range(begin, end):
            t, y = at - begin, y_L[at]
            if t < period:
                mean_L[at] = y_L[at - 1] if t else 0.0
                level += y / period
                state_NS[n, 2 + t] = y
                if t == period - 1:
                    for own in range(period):
                        state_NS[n, 2 + own] -= level
                continue
            if (t - period) % stride == 0:
                for ahead in range(min(horizon, end - at)):
                    told = level + damped_H[ahead] * slope + state_NS[n, 2 + (t + ahead) % period]
                    far += (y_L[at + ahead] - told) ** 2
                    tried += 1
            place = 2 + t % period
            mean_L[at] = level + damping * slope + state_NS[n, place]
            wrong = y - mean_L[at]
            level += damping * slope + alpha * wrong
            slope = damping * slope + beta * wrong
            state_NS[n, place] += gamma * wrong
            error += wrong * wrong
            count += 1
        state_NS[n, 0], state_NS[n, 1] = level, slope
    return error, count, far / tried if tried else 0.0
