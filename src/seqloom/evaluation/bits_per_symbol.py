"""Bits per symbol: how many bits the next symbol costs on average, end symbols included.

    - sum log2 p(x_t | x_1 .. x_{t-1}) / number of predicted tokens

Tokens are pooled: a long sequence weighs more than a short one. Shapes: N sequences, L tokens.
Source: Shannon, "Prediction and entropy of printed English", 1951.
"""

import math

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged


def bits_per_symbol(log_probs: Ragged | np.ndarray) -> float:
    """Bits per symbol of natural log-probabilities; infinite where a symbol had probability 0."""
    values = log_probs.flat if isinstance(log_probs, Ragged) else np.asarray(log_probs)
    if not values.size:
        raise ConfigError("no symbol was predicted: bits per symbol need at least one")
    return -float(np.sum(values, dtype=np.float64)) / values.size / math.log(2)
