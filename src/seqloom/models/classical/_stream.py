"""Sequences as the classical models read them: end to end, with their first and last symbols put in.

    <bos> x_1 .. x_n <eos>  <bos> y_1 .. y_m <eos>  ...

The first token of each sequence is input alone, every other one is predicted. A window that continues an earlier one
opens with its predecessor's last symbol instead of <bos>, and one that goes on later has no <eos>: the same places
that a network is trained on. Shapes: L tokens, N sequences.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.kernels._numba import threads

LONGEST = (1 << 31) - 1  # places are kept in 32 bits


class Stream:
    """Tokens (L,) int32 with the offsets (N + 1,) of their sequences."""

    def __init__(self, ragged: Ragged, vocabulary: int, opens: Any = None, closes: Any = None) -> None:
        """Put in the ends. Raises ConfigError for ids outside the vocabulary, and for more than 2**31 tokens."""
        opens_N, closes_N = _flags(opens, len(ragged), "opens"), _flags(closes, len(ragged), "closes")
        self.offsets = np.concatenate([[0], np.cumsum(ragged.lengths + opens_N + closes_N)])
        if self.offsets[-1] > LONGEST:
            raise ConfigError(f"{self.offsets[-1]} tokens are too many for a classical model: give at most {LONGEST}")
        flat = ragged.flat
        if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < vocabulary:
            raise ConfigError(f"ids run from {flat.min()} to {flat.max()}, but the vocabulary has {vocabulary}")
        inner_L = np.ones(self.offsets[-1], bool)
        first_N, last_N = self.offsets[:-1][opens_N], self.offsets[1:][closes_N] - 1
        inner_L[first_N], inner_L[last_N] = False, False
        self.tokens = np.empty(len(inner_L), np.int32)
        self.tokens[first_N], self.tokens[last_N] = SPECIALS.bos, SPECIALS.eos
        self.tokens[inner_L] = flat
        self._ends = {SPECIALS.bos: int(opens_N.sum()), SPECIALS.eos: int(closes_N.sum())}

    @cached_property
    def first(self) -> np.ndarray:
        """Places of the first tokens, which are input alone; empty sequences have none."""
        return self.offsets[:-1][np.diff(self.offsets) > 0]

    @property
    def predicted(self) -> int:
        """How many tokens are predicted."""
        return len(self.tokens) - len(self.first)

    def check_learnable(self) -> None:
        """Training data holds symbols, <unk> and nothing else: the ends come from here."""
        for id in (*SPECIALS.unpredictable, SPECIALS.eos):
            if np.count_nonzero(self.tokens == id) > self._ends.get(id, 0):
                raise ConfigError(
                    f"the training sequences hold the special id {id}, which a classical model cannot learn: "
                    "take it out, the ends are put in by the model"
                )

    def ragged(self, values_L: np.ndarray) -> Ragged:
        """Values of all tokens -> those of the predicted ones, by sequence."""
        keep_L = np.ones(len(self.tokens), bool)
        keep_L[self.first] = False
        lengths_N = np.maximum(np.diff(self.offsets) - 1, 0)
        return Ragged(values_L[keep_L], np.concatenate([[0], np.cumsum(lengths_N)]))


def spread(work: Any, starts: np.ndarray, total: int) -> None:
    """Call ``work(begin, end)`` for parts of the groups that hold about equal shares of ``total``, one a thread.

    ``starts`` tells where each group begins in 0 .. total. The compiled loops release the interpreter's lock.
    """
    parts = threads(total)
    inner = np.searchsorted(starts, np.arange(1, parts) * (total / parts))
    bounds = [0, *inner.tolist(), len(starts)]
    if parts == 1:
        work(0, len(starts))
        return
    with ThreadPoolExecutor(parts) as pool:
        for job in [pool.submit(work, begin, end) for begin, end in itertools.pairwise(bounds)]:
            job.result()


def _flags(given: Any, count: int, name: str) -> np.ndarray:
    flags = np.ones(count, bool) if given is None else np.asarray(given, bool)
    if flags.shape != (count,):
        raise ConfigError(f"{name} has the shape {flags.shape} for {count} sequences; give one flag for each")
    return flags
