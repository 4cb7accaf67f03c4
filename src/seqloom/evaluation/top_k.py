"""Top-k accuracy: how often what comes is among the k most probable outcomes.

Shapes: N predictions, K outcomes.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._scores import checked, ranks


@overload
def top_k(scores: Any, targets: Any, k: int = 5) -> float: ...
@overload
def top_k(scores: Any, targets: Any, k: int = 5, *, each: Literal[True]) -> np.ndarray: ...
def top_k(scores: Any, targets: Any, k: int = 5, *, each: bool = False) -> float | np.ndarray:
    """Share of hits; with ``each``, the hit of every prediction (N,).

    Args:
        scores: Logits, probabilities or their logarithms (N, K). Of equal scores the lowest number comes first.
        targets: Which outcome came (N,).
        k: How many outcomes may be named.
        each: False for the mean.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, not {k}")
    hits_N = (ranks(*checked(scores, targets)) < k).astype(np.float64)
    return hits_N if each else float(hits_N.mean())
