"""How sure a model was and how often it was right, bin by bin."""

from typing import NamedTuple

import numpy as np


class Reliability(NamedTuple):
    """The curve and its mean distance from the diagonal; only bins that hold something."""

    error: float
    """Expected calibration error."""
    confidence_B: np.ndarray
    """Mean probability of the likeliest outcome."""
    frequency_B: np.ndarray
    """How often it came."""
    count_B: np.ndarray
    """Predictions."""
