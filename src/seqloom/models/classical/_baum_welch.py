"""Baum and Welch's climb: expected counts of all paths, then the frequencies that they give, and again.

    move(j, k) = (c(j, k) + m / (K + 1)) / (c(j) + m)        emission(k, w) = (c(k, w) + m q(w)) / (c(k) + m)

The counts come from the kernel ``lattice_counts``, block by block of padded sequences; no (T, K, V) is ever made. The
last column of ``move`` and of ``enter`` is the end of the sequence, which the states do not emit. What climbs is the
log-likelihood plus the log of the Dirichlet density that the m pseudo-events amount to; q is the smoothed unigram.
Shapes: N sequences, B rows of a block, T time, K states, S = K + 1 with the end, V vocabulary.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqloom.core.protocols import Progress
from seqloom.core.specials import SPECIALS
from seqloom.kernels.lattice import lattice_counts
from seqloom.models.classical._stream import Stream

CELLS = 1 << 18  # symbols of a block, padding included


class Weights(NamedTuple):
    """All of a hidden Markov model; each row of each array is a distribution."""

    enter_2S: np.ndarray
    """The first state after <bos>, and the next one where nothing is known."""
    move_KS: np.ndarray
    emission_KV: np.ndarray


class Block(NamedTuple):
    """Sequences of about one length, without their ends."""

    symbol_BT: Tensor
    length_B: Tensor
    opens_B: np.ndarray
    closes_B: np.ndarray


class Counts(NamedTuple):
    """What the paths do, on average; ``objective`` is of the weights that they were counted with."""

    objective: float
    enter_2S: np.ndarray
    move_KS: np.ndarray
    emission_KV: np.ndarray


class Sequences:
    """Training sequences in blocks, sorted by length, and the unigram of their symbols."""

    def __init__(self, stream: Stream, unigram_V: np.ndarray, strength: float) -> None:
        """Cut a stream into blocks; ``strength`` pseudo-events are added to every distribution."""
        self.unigram_V, self.strength, self.predicted = unigram_V, strength, stream.predicted
        begin_N, end_N = stream.offsets[:-1], stream.offsets[1:]
        some_N = end_N > begin_N
        begin_N, end_N = begin_N[some_N], end_N[some_N]
        opens_N = stream.tokens[begin_N] == SPECIALS.bos
        closes_N = stream.tokens[end_N - 1] == SPECIALS.eos
        length_N = end_N - begin_N - opens_N - closes_N
        self.empty = int(((length_N == 0) & opens_N & closes_N).sum())
        order_N = np.argsort(length_N, kind="stable")
        order_N = order_N[length_N[order_N] > 0]
        self.blocks = []
        for at in _cut(length_N[order_N]):
            rows = order_N[at]
            length_B, step_T = length_N[rows], np.arange(length_N[rows[-1]])
            place_BT = np.minimum((begin_N + opens_N)[rows, None] + step_T, len(stream.tokens) - 1)
            symbol_BT = torch.from_numpy(stream.tokens[place_BT])
            self.blocks.append(Block(symbol_BT, torch.from_numpy(length_B), opens_N[rows], closes_N[rows]))
        self.windows = any(not block.opens_B.all() for block in self.blocks)

    def draw(self, states: int, rng: np.random.Generator) -> Weights:
        """Random weights to start from; no two states are alike."""
        noise_KV = rng.exponential(size=(states, len(self.unigram_V)))
        enter_2S, move_KS = rng.exponential(size=(2, states + 1)), rng.exponential(size=(states, states + 1))
        return Weights(_rows(enter_2S + 0.1), _rows(move_KS + 0.1), _rows(self.unigram_V * (noise_KV + 0.1)))

    def expect(self, weights: Weights) -> Counts:
        """Count over all paths."""
        K = len(weights.move_KS)
        enter_2S, move_KS, emission_VK = np.zeros((2, K + 1)), np.zeros((K, K + 1)), 0.0
        enter_2S[0, K] = self.empty
        with np.errstate(divide="ignore", invalid="ignore"):
            objective = self.empty * np.log(weights.enter_2S[0, K]) + self._prior(weights)
        for block in self.blocks:
            start_GK, end_GK = _edges(block, weights)
            table_VK = torch.from_numpy(np.ascontiguousarray(weights.emission_KV.T))
            arc_KK = torch.from_numpy(weights.move_KS[:, :K].copy())
            found = lattice_counts(block.symbol_BT, block.length_B, table_VK, arc_KK, start_GK, end_GK)
            score_B, count_VK, count_KK, first_BK, last_BK = (value.numpy() for value in found)
            objective += score_B.sum()
            emission_VK, move_KS[:, :K] = emission_VK + count_VK, move_KS[:, :K] + count_KK
            enter_2S[0, :K] += first_BK[block.opens_B].sum(0)
            enter_2S[1, :K] += first_BK[~block.opens_B].sum(0)
            move_KS[:, K] += last_BK[block.closes_B].sum(0)
        emission_KV = np.zeros_like(weights.emission_KV) + np.transpose(emission_VK)
        return Counts(float(objective), enter_2S, move_KS, emission_KV)

    def maximise(self, counts: Counts) -> Weights:
        """The weights that these counts make most likely."""
        share = self.strength / counts.move_KS.shape[1]
        enter_2S = counts.enter_2S.copy()
        if not self.windows:  # no sequence begins in the middle: the next state is whatever it mostly is
            enter_2S[1] = counts.move_KS.sum(0) + counts.enter_2S[0]
        emission_KV = counts.emission_KV + self.strength * self.unigram_V
        return Weights(_rows(enter_2S + share), _rows(counts.move_KS + share), _rows(emission_KV))

    def climb(self, weights: Weights, steps: int, tolerance: float, progress: Progress) -> tuple[float, Weights]:
        """Step up till a step gains too little. The objective is that before the last step."""
        objective = -np.inf
        for _ in range(steps):
            counts, before = self.expect(weights), objective
            weights, objective = self.maximise(counts), counts.objective
            progress.advance()
            if objective - before <= tolerance * self.predicted:
                break
        return objective, weights

    def _prior(self, weights: Weights) -> float:
        """Log of the Dirichlet density, but for a constant; rows that are no parameters are left out."""
        share = self.strength / weights.move_KS.shape[1]
        enter = weights.enter_2S if self.windows else weights.enter_2S[:1]
        seen_V = self.unigram_V > 0
        emission = (self.unigram_V[seen_V] * np.log(weights.emission_KV[:, seen_V])).sum()
        return float(share * (np.log(weights.move_KS).sum() + np.log(enter).sum()) + self.strength * emission)


def _cut(length_N: np.ndarray) -> Iterator[slice]:
    """Slices of sorted sequences whose padded block is not too large; one sequence at least."""
    begin = 0
    for end in range(1, len(length_N) + 1):
        if end == len(length_N) or length_N[end] * (end + 1 - begin) > CELLS:
            yield slice(begin, end)
            begin = end


def _edges(block: Block, weights: Weights) -> tuple[Tensor, Tensor]:
    """Weights of the first and last states (G, K): one row where all sequences begin and end alike."""
    K = len(weights.move_KS)
    start_GK, end_K = weights.enter_2S[:1, :K], weights.move_KS[:, K]
    end_GK = end_K[None]
    if not block.opens_B.all():
        start_GK = weights.enter_2S[np.where(block.opens_B, 0, 1), :K]
    if not block.closes_B.all():
        end_GK = np.where(block.closes_B[:, None], end_K, 1.0)
    return torch.from_numpy(start_GK.copy()), torch.from_numpy(end_GK.copy())


def _rows(count: np.ndarray) -> np.ndarray:
    return count / count.sum(-1, keepdims=True)
