"""Counts of single symbols, and the smoothed frequencies that other models fall back to.

Shapes: V vocabulary.
"""

import numpy as np

from seqloom.core.specials import SPECIALS
from seqloom.models.classical._stream import Stream

BLOCK = 1 << 20
"""Tokens that are counted at a time."""


def predicted_counts(stream: Stream, vocabulary: int) -> np.ndarray:
    """How often each id is predicted: the first tokens of the sequences are left out. int64 (V,)."""
    every_V = counted(stream.tokens, vocabulary)
    return every_V - np.bincount(stream.tokens[stream.first], minlength=vocabulary)


def counted(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """How often each id comes, int64 (V,); block by block, since numpy counts a copy of 64 bits."""
    count_V = np.zeros(vocabulary, np.int64)
    for at in range(0, len(tokens), BLOCK):
        count_V += np.bincount(tokens[at : at + BLOCK], minlength=vocabulary)
    return count_V


def predictable(vocabulary: int) -> np.ndarray:
    """True for the ordinary symbols, <eos> and <unk> (V,)."""
    mask_V = np.ones(vocabulary, bool)
    mask_V[list(SPECIALS.unpredictable)] = False
    return mask_V


def smoothed(count_V: np.ndarray, pseudocount: float) -> np.ndarray:
    """Natural log of (c + a) / (n + a |A|); -inf for what is never predicted."""
    mask_V = predictable(len(count_V))
    log_V = np.full(len(count_V), -np.inf)
    total = count_V[mask_V].sum() + pseudocount * mask_V.sum()
    log_V[mask_V] = np.log((count_V[mask_V] + pseudocount) / total)
    return log_V
