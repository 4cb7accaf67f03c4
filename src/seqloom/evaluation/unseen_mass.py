"""Unseen mass: the probability that the next symbol is one that was never seen.

    (r_1 + 1/2) / (n + A + 1)        r_1 of the A symbols seen came once, n symbols were counted in all

Good's estimate is r_1 / n. The additions keep it inside (0, 1), also where nothing came once, or everything did: a
symbol that does come new would otherwise cost infinitely many bits, or leave nothing to the known ones. They lower it
by about A / n of itself, which is little but where nearly every symbol is new.
Shapes: A symbols seen.
Source: Good, "The population frequencies of species and the estimation of population parameters", 1953, section 2.
"""

from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError


def unseen_mass(counts: Any) -> float:
    """Share of symbols seen once, and a little: what to set aside for those to come.

    Args:
        counts: How often each symbol came (A,); a symbol of the vocabulary that never did may stand among them.
    """
    count_A = np.asarray(counts)
    if count_A.ndim != 1 or (count_A < 0).any():
        raise ConfigError(f"counts of the shape {count_A.shape} must be one number a symbol, none below 0")
    return (float((count_A == 1).sum()) + 0.5) / (float(count_A.sum()) + len(count_A) + 1)
