"""Hidden Markov model: a walk among a few states that nobody sees, each of which gives symbols in its own way.

    s_1 = enter    p(w | x_1 .. x_{t-1}) = sum_k s_t(k) emission(k, w)    p(<eos> | ..) = s_t(end)
    s_{t+1}(k) = sum_j s_t(j) emission(j, x_t) move(j, k) / sum_j s_t(j) emission(j, x_t)

The end is where a walk can go from each state, as it can to each other; no state emits <eos>. The memory is s_t, what
is known of the next state (alpha(prefix) A in the usual letters). A window that continues an earlier sequence enters by
a distribution of its own: that of the states in the middle of sequences. Learnt by Baum and Welch's climb from random
starts; the number of states is chosen on validation data. m pseudo-events are added to every distribution, uniform for
the moves and drawn from the smoothed unigram q for the symbols, so that none is impossible.

    q(w) = (c(w) + a) / (n + a |A|)

Shapes: B rows, T time, K states, S = K + 1 with the end (the memory), V vocabulary, L tokens of a stream, R rows.
Source: Baum, Petrie, Soules and Weiss, 1970; Rabiner, "A tutorial on hidden Markov models and selected applications in
speech recognition", 1989, sections III and V; Tax, Teinemaa and van Zelst, 2018, arXiv:1811.00062, section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.rng import generator
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._baum_welch import Sequences, Weights
from seqloom.models.classical._counts import predictable, predicted_counts, smoothed
from seqloom.models.classical._stream import Stream, spread

SHORT = 10  # steps of every random start, of which the best goes on
BOS, EOS = SPECIALS.bos, SPECIALS.eos


class HMM(ClassicalModel):
    """Hidden Markov model with an end; ``states`` of it."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalModel.Config):
        """Options of the states and of the climb."""

        states: tuple[int, ...] = (2, 4, 8, 16)
        """Numbers of states to try; validation data choose, the first on a tie, and without them the last is taken."""
        restarts: int = 3
        """Random starts of each; the likeliest after a few steps goes on."""
        steps: int = 100
        """Most steps of the climb."""
        tolerance: float = 1e-5
        """Stop when a step gains less than this many nats a symbol."""
        strength: float = 1.0
        """m: pseudo-events of every distribution; above 0."""
        pseudocount: float = 0.5
        """a: added to the count of every symbol in the unigram; above 0."""
        seed: int = 0
        """Of the random starts."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where there is no state, no step, or an amount of smoothing that is not positive."""
        super().__init__(sizes, config)
        if not self.config.states or min(self.config.states) < 1:
            raise ConfigError(f"states must be numbers of at least 1, not {self.config.states}")
        for name in ("restarts", "steps"):
            if getattr(self.config, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self.config, name)}")
        for name in ("strength", "pseudocount"):
            if not getattr(self.config, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self.config, name)}")

    @property
    def states(self) -> int:
        """The number of states that was learnt."""
        self._check_fitted()
        return len(self.weights.move_KS)

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        enter_2S, move_KS, emission_KV = self.weights
        return {"enter": enter_2S, "move": move_KS, "emission": emission_KV}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        given = (np.asarray(arrays.get(name, ()), float) for name in ("enter", "move", "emission"))
        weights = Weights(*(np.ascontiguousarray(array) for array in given))
        states, emitted_V = len(weights.move_KS), self._emitted()
        shapes = ((2, states + 1), (states, states + 1), (states, self.sizes.vocabulary))
        fits = states > 0 and all(array.shape == shape for array, shape in zip(weights, shapes, strict=True))
        if not fits or not all(np.allclose(array.sum(1), 1) and (array >= 0).all() for array in weights):
            raise CheckpointError(f"a hidden Markov model needs enter, move and emission of {shapes}: save it again")
        if weights.emission_KV[:, ~emitted_V].any() or not (weights.emission_KV[:, emitted_V] > 0).all():
            raise CheckpointError("the emissions belong to another vocabulary: save the model again")
        self._keep(weights)
        self.fitted = True

    @property
    def held_parameters(self) -> int:
        states = self.states
        return states * (2 + states) + states * int(self._emitted().sum() - 1)

    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        count_V = predicted_counts(stream, self.sizes.vocabulary)
        unigram_V = np.exp(smoothed(count_V, self.config.pseudocount)) * self._emitted()
        sequences = Sequences(stream, unigram_V / unigram_V.sum(), self.config.strength)
        held = valid if valid is not None and valid.predicted else None
        best, found = -np.inf, None
        for states in dict.fromkeys(self.config.states if held is not None else self.config.states[-1:]):
            self._keep(self._climb(sequences, states, progress))
            score = 0.0 if held is None else held.ragged(self._score(held)).values.sum()
            if score > best:
                best, found = score, self.weights
        self._keep(found if found is not None else self.weights)

    def _climb(self, sequences: Sequences, states: int, progress: Progress) -> Weights:
        """The best of some random starts, climbed to the top."""
        options, tops = self.config, []
        progress.stage(f"learn {states} states", None, "step")
        for start in range(options.restarts):
            drawn = sequences.draw(states, generator(options.seed, "hmm", states, start))
            tops.append(sequences.climb(drawn, min(SHORT, options.steps), options.tolerance, progress))
        highest = max(tops, key=lambda top: top[0])[1]
        return sequences.climb(highest, max(0, options.steps - SHORT), options.tolerance, progress)[1]

    def _keep(self, weights: Weights) -> None:
        self.weights = weights
        table_VK = np.ascontiguousarray(weights.emission_KV.T)
        table_VK[~self._emitted()] = 1.0  # a special that no state emits, <mask> for one, tells nothing of the state
        self._table_VK = table_VK

    def _emitted(self) -> np.ndarray:
        """True for what a state can emit (V,): the ordinary symbols and <unk>."""
        mask_V = predictable(self.sizes.vocabulary)
        mask_V[EOS] = False
        return mask_V

    def _start(self, rows: int) -> np.ndarray:
        return np.tile(self.weights.enter_2S[1], (rows, 1))

    def _read(self, memory_BM: np.ndarray, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
        out_BTS = np.empty((*tokens_BT.shape, memory_BM.shape[1]))
        tokens_BT, memory_BM = np.ascontiguousarray(tokens_BT, np.int32), np.ascontiguousarray(memory_BM)
        _read_rows(self._table_VK, self.weights, memory_BM, tokens_BT, lengths_B, out_BTS)
        return out_BTS

    def _log_probs(self, memory_BM: np.ndarray) -> np.ndarray:
        out_RV = np.zeros((len(memory_BM), self.sizes.vocabulary))
        _distributions(self.weights.emission_KV, np.ascontiguousarray(memory_BM), out_RV)
        with np.errstate(divide="ignore"):  # <bos> and its kin have probability 0
            return np.log(out_RV)

    def _score(self, stream: Stream) -> np.ndarray:
        p_L = np.ones(len(stream.tokens))
        work = partial(_score_rows, self._table_VK, self.weights, stream.tokens, stream.offsets, p_L)
        spread(work, stream.offsets[:-1], len(p_L))
        impossible_V = ~predictable(self.sizes.vocabulary)
        with np.errstate(divide="ignore"):
            return np.log(np.where(impossible_V[stream.tokens], 0.0, p_L))


@numba.njit(cache=True, nogil=True)
def _advance(table_VK, weights, s_S, w, next_S):
    """Read one symbol: what is known of the next state. Returns the symbol's probability."""
    enter, move, end = weights.enter_2S, weights.move_KS, len(s_S) - 1
    if w in (BOS, EOS):
        p = s_S[end]
        next_S[:] = enter[0 if w == BOS else 1]
        return p
    p = 0.0
    for k in range(end):
        p += s_S[k] * table_VK[w, k]
    if p == 0:
        next_S[:] = enter[1]  # what cannot happen tells nothing
        return p
    for k in range(end + 1):
        next_S[k] = 0.0
    for j in range(end):
        share = s_S[j] * table_VK[w, j] / p
        for k in range(end + 1):
            next_S[k] += share * move[j, k]
    return p


@numba.njit(cache=True, nogil=True)
def _read_rows(table_VK, weights, memory_BS, tokens_BT, lengths_B, out_BTS):
    """The memory after every token; a row's last one stays behind its length."""
    for b in range(len(tokens_BT)):
        s_S = memory_BS[b].copy()
        next_S = s_S.copy()
        for t in range(tokens_BT.shape[1]):
            if t < lengths_B[b]:
                _advance(table_VK, weights, s_S, tokens_BT[b, t], next_S)
                s_S[:] = next_S
            out_BTS[b, t] = s_S


@numba.njit(cache=True, nogil=True)
def _score_rows(table_VK, weights, tokens_L, offsets, p_L, begin, end):
    """Probability of every token of some sequences; that of a first one is never asked for."""
    s_S = weights.enter_2S[1].copy()
    next_S = s_S.copy()
    for n in range(begin, end):
        s_S[:] = weights.enter_2S[1]
        for at in range(offsets[n], offsets[n + 1]):
            p_L[at] = _advance(table_VK, weights, s_S, tokens_L[at], next_S)
            s_S[:] = next_S


@numba.njit(cache=True, nogil=True)
def _distributions(emission_KV, memory_RS, out_RV):
    """Probabilities of what comes next; row by row, so that no row depends on its neighbours."""
    K = len(emission_KV)
    for r in range(len(memory_RS)):
        for k in range(K):
            share = memory_RS[r, k]
            for v in range(emission_KV.shape[1]):
                out_RV[r, v] += share * emission_KV[k, v]
        out_RV[r, EOS] = memory_RS[r, K]
