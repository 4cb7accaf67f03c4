"""Deterministic automata with counts on their edges, and the models that predict by walking along them.

    p(w | q) = (c(q, w) + m u(w)) / (c(q) + m)        u: the smoothed unigram, m: its pseudo-events in every state

State 0 is where a sequence begins. Where a state has no edge for a symbol, the walk goes on where the most used edge
with this symbol leads; a symbol that no edge has leads to the lost state, which predicts the unigram. So a walk finds
its way again after one symbol, and one strange event does not spoil the rest of a sequence.
Shapes: S states, E edges, B rows, T time, V vocabulary, L tokens of a stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, Self

import numba
import numpy as np

from seqloom.core.errors import CheckpointError
from seqloom.core.specials import SPECIALS
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._counts import smoothed
from seqloom.models.classical._stream import Stream, spread

FIELDS = {"first": np.int64, "symbol": np.int32, "target": np.int32, "count": np.int64}


class Edge(NamedTuple):
    """A way from state to state."""

    source: int
    symbol: int
    target: int
    count: int


@dataclass(frozen=True)
class Automaton:
    """Edges by (source, symbol): those of state q are ``first[q]`` to ``first[q + 1] - 1``."""

    first: np.ndarray
    symbol: np.ndarray
    target: np.ndarray
    """State behind each edge."""
    count: np.ndarray
    """How often training went along it."""

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.first) - 1

    @property
    def source(self) -> np.ndarray:
        """State before each edge (E,)."""
        return np.repeat(np.arange(self.states), np.diff(self.first))

    @property
    def finals(self) -> np.ndarray:
        """How often a training sequence ended in each state (S,)."""
        ends_E = self.symbol == SPECIALS.eos
        return np.bincount(self.source[ends_E], self.count[ends_E], self.states).astype(np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], vocabulary: int) -> Self:
        """Take back what ``arrays`` gave; CheckpointError for anything that the compiled loops could trip over."""
        try:
            own = cls(**{name: np.ascontiguousarray(arrays[name], kind) for name, kind in FIELDS.items()})
        except KeyError as missing:
            raise CheckpointError(f"the saved automaton lacks {missing}: save the model again") from None
        if not _sound(own, vocabulary):
            raise CheckpointError(
                "the saved automaton does not fit together: the file was edited, save the model again"
            )
        return own


class Walker(Protocol):
    """A model that is an automaton."""

    @property
    def automaton(self) -> Automaton:
        """What it walks on."""


def edges(model: Walker, limit: int = 40) -> list[Edge]:
    """The most used edges of a model, the most used first: what a picture of it shows. Ends are among them."""
    own = model.automaton
    best_E = np.argsort(-own.count, kind="stable")[:limit]
    columns = (own.source, own.symbol, own.target, own.count)
    return [Edge(*(int(column_E[e]) for column_E in columns)) for e in best_E]


class Table(NamedTuple):
    """An automaton in the form that the loops read; the lost state is the last."""

    first: np.ndarray
    symbol: np.ndarray
    target: np.ndarray
    log_p: np.ndarray
    log_back: np.ndarray
    log_base_V: np.ndarray
    again_V: np.ndarray
    """Where the walk goes on if a state has no edge for a symbol."""


class AutomatonModel(ClassicalModel):
    """Base of the models that keep an automaton. The memory is the number of the state."""

    automaton: Automaton
    strength: float
    count_V: np.ndarray

    @property
    def held_parameters(self) -> int:
        """Probabilities of edges and the weight of each state."""
        self._check_fitted()
        return len(self.automaton.count) + self.automaton.states

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        return {**self.automaton.arrays(), "unigram": self.count_V, "strength": np.array([self.strength])}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        automaton = Automaton.of_arrays(arrays, self.sizes.vocabulary)
        count_V = np.asarray(arrays.get("unigram", ()), np.int64)
        strength = np.asarray(arrays.get("strength", ()), np.float64)
        if count_V.shape != (self.sizes.vocabulary,) or (count_V < 0).any():
            raise CheckpointError(f"an automaton needs a count for each of {self.sizes.vocabulary} ids: save it again")
        if strength.shape != (1,) or not 0 < strength < np.inf:
            raise CheckpointError("the saved automaton has no strength above 0: save the model again")
        self.count_V = count_V
        self._keep(automaton, float(strength[0]))
        self.fitted = True

    def _keep(self, automaton: Automaton, strength: float) -> None:
        log_base_V = smoothed(self.count_V, self.config.pseudocount)
        total_S = np.bincount(automaton.source, automaton.count, automaton.states)
        share_E = automaton.count + strength * np.exp(log_base_V)[automaton.symbol]
        again_V = np.full(self.sizes.vocabulary, automaton.states, np.int32)
        rising_E = np.argsort(automaton.count[::-1], kind="stable")  # of equal ones the first is last
        again_V[automaton.symbol[::-1][rising_E]] = automaton.target[::-1][rising_E]
        again_V[SPECIALS.bos] = 0
        self.automaton, self.strength = automaton, strength
        self.table = Table(
            first=np.append(automaton.first, automaton.first[-1]),
            symbol=automaton.symbol,
            target=automaton.target,
            log_p=np.log(share_E / (total_S + strength)[automaton.source]),
            log_back=np.append(np.log(strength / (total_S + strength)), 0.0),
            log_base_V=log_base_V,
            again_V=again_V,
        )

    def _start(self, rows: int) -> np.ndarray:
        return np.zeros((rows, 1))

    def _read(self, memory_BM: np.ndarray, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
        out_BT = np.empty(tokens_BT.shape)
        _read_rows(self.table, memory_BM[:, 0], np.ascontiguousarray(tokens_BT, np.int32), lengths_B, out_BT)
        return out_BT[..., None]

    def _log_probs(self, memory_BM: np.ndarray) -> np.ndarray:
        state_B = memory_BM[:, 0].astype(np.int64)
        out_BV = self.table.log_base_V + self.table.log_back[state_B, None]
        _replace(self.table, state_B, out_BV)
        return out_BV

    def _score(self, stream: Stream) -> np.ndarray:
        out_L = np.zeros(len(stream.tokens))
        spread(
            partial(_score, self.table, stream.tokens, stream.offsets, out_L), stream.offsets[:-1], len(stream.tokens)
        )
        return out_L


def _sound(own: Automaton, vocabulary: int) -> bool:
    first, total = own.first, len(own.symbol)
    if first.ndim != 1 or len(first) < 2 or first[0] != 0 or first[-1] != total or (np.diff(first) < 0).any():
        return False
    if not total == len(own.target) == len(own.count) or (own.count < 0).any():
        return False
    if ((own.symbol < 0) | (own.symbol >= vocabulary) | (own.target < 0) | (own.target >= own.states)).any():
        return False
    if np.isin(own.symbol, SPECIALS.unpredictable).any():
        return False
    key_E = own.source * vocabulary + own.symbol
    return bool((np.diff(key_E) > 0).all())


@numba.njit(cache=True, nogil=True, inline="always")
def _follow(table, state, w):
    """Log-probability of a symbol in a state, and the state after it."""
    low, high = table.first[state], table.first[state + 1]
    end = high
    while low < high:
        middle = (low + high) >> 1
        if table.symbol[middle] < w:
            low = middle + 1
        else:
            high = middle
    if low < end and table.symbol[low] == w:
        return table.log_p[low], np.int64(table.target[low])
    return table.log_back[state] + table.log_base_V[w], np.int64(table.again_V[w])


@numba.njit(cache=True, nogil=True)
def _score(table, tokens, offsets, out, begin, end):
    """Score whole sequences."""
    for row in range(begin, end):
        state = 0
        for at in range(offsets[row], offsets[row + 1]):
            out[at], state = _follow(table, state, tokens[at])


@numba.njit(cache=True, nogil=True)
def _read_rows(table, memory_B, tokens_BT, lengths_B, out_BT):
    """The state after every token; a row's last one stays behind its length."""
    for b in range(len(tokens_BT)):
        state = np.int64(memory_B[b])
        for t in range(tokens_BT.shape[1]):
            if t < lengths_B[b]:
                _, state = _follow(table, state, tokens_BT[b, t])
            out_BT[b, t] = state


@numba.njit(cache=True, nogil=True)
def _replace(table, state_B, out_BV):
    """What has an edge gets the edge's probability."""
    for b in range(len(state_B)):
        for e in range(table.first[state_B[b]], table.first[state_B[b] + 1]):
            out_BV[b, table.symbol[e]] = table.log_p[e]
