"""Many differences at once: how likely each is among equals, and what is left of it when all are looked at.

    p = 2 min(share of replicates <= 0, share >= 0)        Holm: the smallest p times m, the next times m - 1, ...

Shapes: R replicates.
Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
"""

from collections.abc import Sequence

import numpy as np


def odds(gap_R: np.ndarray) -> float:
    """Chance that a difference with these replicates is none; never 0, for one more might lie on the other side."""
    least = int(min((gap_R <= 0).sum(), (gap_R >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (1 + len(gap_R)))


def holm(raw: Sequence[float]) -> list[float]:
    """Step-down correction: the smallest p is multiplied by their number, the next by one less, and so on."""
    corrected, highest = [0.0] * len(raw), 0.0
    for rank, at in enumerate(np.argsort(raw, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(raw) - rank) * raw[at]))
        corrected[at] = highest
    return corrected
