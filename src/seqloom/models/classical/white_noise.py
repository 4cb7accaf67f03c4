"""White noise: every value by itself, the trivial baseline of real-valued sequences.

    y_t ~ N(m, s)

Shapes: N sequences, L steps, P predicted channels.
Source: Box and Jenkins, "Time series analysis: forecasting and control", 1970, chapter 2.
"""

import numpy as np

from seqloom.core.protocols import Progress
from seqloom.data.ragged import Ragged
from seqloom.models.classical._values import ValueModel, first_steps, spread


class WhiteNoise(ValueModel):
    """Mean and standard deviation of the values, whatever came before."""

    learnt = ("mean_P", "scale_P")

    def _learn(self, own: Ragged, opens_N: np.ndarray, progress: Progress) -> None:
        context_L = first_steps(own)
        context_L[own.offsets[:-1][(own.lengths > 0) & opens_N]] = False
        counted_LP = own.flat[~context_L]
        self.mean_P = counted_LP.mean(0) if len(counted_LP) else np.zeros(self.sizes.values)
        self.scale_P = spread(counted_LP - self.mean_P)

    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        shape = (own.total, self.sizes.values)
        return np.broadcast_to(self.mean_P, shape), np.broadcast_to(self.scale_P, shape)

    def _ahead(self, own: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(own), horizon, self.sizes.values)
        return np.broadcast_to(self.mean_P, shape), np.broadcast_to(self.scale_P, shape)
