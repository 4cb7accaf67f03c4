"""Accuracy: how often the most probable outcome is the one that comes.

Shapes: N predictions, K outcomes.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.evaluation._scores import checked, ranks


@overload
def accuracy(scores: Any, targets: Any) -> float: ...
@overload
def accuracy(scores: Any, targets: Any, *, each: Literal[True]) -> np.ndarray: ...
def accuracy(scores: Any, targets: Any, *, each: bool = False) -> float | np.ndarray:
    """Share of hits; with ``each``, the hit of every prediction (N,), for intervals by sequence.

    Args:
        scores: Logits, probabilities or their logarithms (N, K). Of equal scores the lowest number is predicted.
        targets: Which outcome came (N,).
        each: False for the mean.
    """
    hits_N = (ranks(*checked(scores, targets)) == 0).astype(np.float64)
    return hits_N if each else float(hits_N.mean())
