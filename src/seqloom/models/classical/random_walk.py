"""Random walk: the next value is the last one, give or take; the baseline that many series are hard to beat by.

    y_1 ~ N(m, s_1)        y_t ~ N(y_{t-1}, s)        y_{t+h} ~ N(y_t, s sqrt(h))

Shapes: N sequences, L steps, H steps ahead, P predicted channels.
Source: Hyndman and Athanasopoulos, "Forecasting: principles and practice", 2021, section 5.2 (the naive method).
"""

import numpy as np

from seqloom.core.protocols import Progress
from seqloom.data.ragged import Ragged
from seqloom.models.classical._values import ValueModel, first_steps, last_steps, spread


class RandomWalk(ValueModel):
    """The last value, with the spread of the changes; the first value of a sequence is that of all values."""

    learnt = ("mean_P", "scale_first_P", "scale_P")

    def _learn(self, own: Ragged, opens_N: np.ndarray, progress: Progress) -> None:
        self.mean_P = own.flat.mean(0) if own.total else np.zeros(self.sizes.values)
        self.scale_first_P = spread(own.flat - self.mean_P)
        self.scale_P = spread(np.diff(own.flat, axis=0, prepend=0.0)[~first_steps(own)])

    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        first_L1 = first_steps(own)[:, None]
        last_LP = np.concatenate([np.zeros((1, self.sizes.values)), own.flat])[: own.total]
        mean_LP = np.where(first_L1, self.mean_P, last_LP)
        return mean_LP, np.where(first_L1, self.scale_first_P, self.scale_P)

    def _ahead(self, own: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        last_NP, there_N = last_steps(own)
        mean_NP = np.where(there_N[:, None], last_NP, self.mean_P)
        grown_HP = np.sqrt(np.arange(1, horizon + 1))[:, None] * self.scale_P
        first_HP = np.sqrt(self.scale_first_P**2 + grown_HP**2 - self.scale_P**2)  # the first value, then a walk
        scale_NHP = np.where(there_N[:, None, None], grown_HP, first_HP)
        return np.broadcast_to(mean_NP[:, None], scale_NHP.shape), scale_NHP
