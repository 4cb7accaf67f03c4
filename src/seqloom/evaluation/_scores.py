"""What metrics of whole distributions share: log-probabilities (N, K) of K outcomes and which one came (N,).

Ties are broken as the decoders break them: the lowest number wins.
"""

from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError


def checked(scores: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 (N, K) and targets as int64 (N,). ConfigError where they do not fit together."""
    scores_NK, targets_N = np.asarray(scores, np.float64), np.asarray(targets)
    if scores_NK.ndim != 2 or targets_N.shape != scores_NK.shape[:1]:
        raise ConfigError(f"scores of the shape {scores_NK.shape} need one target a row, not {targets_N.shape}")
    if not len(targets_N):
        raise ConfigError("there is nothing to evaluate: no prediction was given")
    if not 0 <= targets_N.min() <= targets_N.max() < scores_NK.shape[1]:
        raise ConfigError(f"targets run from {targets_N.min()} to {targets_N.max()} over {scores_NK.shape[1]} outcomes")
    if np.isnan(scores_NK).any():
        raise ConfigError(f"row {int(np.isnan(scores_NK).any(1).argmax())} of the scores is not a number")
    return scores_NK, targets_N.astype(np.int64)


def ranks(scores_NK: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """How many outcomes stand before the one that came: 0 = it was predicted. int64 (N,)."""
    own_N1 = np.take_along_axis(scores_NK, targets_N[:, None], 1)
    lower_NK = np.arange(scores_NK.shape[1]) < targets_N[:, None]
    return ((scores_NK > own_N1) | ((scores_NK == own_N1) & lower_NK)).sum(1)
