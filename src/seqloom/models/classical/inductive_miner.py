"""Inductive miner: a process model is discovered, a prefix replayed on it, and what it allows next is weighed.

    p(w | h) = (1 - s) (c(w, z) + m q(w | z)) / (c(z) + m) + s q(w)        z: where the replay of h stands on the model

c(w, z) counts how often training went on from z with a symbol (or the end) that the model allows there; q is the
smoothed unigram, and q(w | z) its share among those. What the model does not allow has the share s of q alone.
Shapes: B rows, T time, V vocabulary, L tokens of a stream.
Source: Leemans, Fahland and van der Aalst, "Discovering block-structured process models from event logs", 2013,
doi:10.1007/978-3-642-38697-8_17, and "... containing infrequent behaviour", 2014, doi:10.1007/978-3-319-06257-0_6;
Tax, Teinemaa and van Zelst, 2018, arXiv:1811.00062, section 3, for the predictor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._counts import predictable, predicted_counts, smoothed
from seqloom.models.classical._discovery import mine
from seqloom.models.classical._petri import Net, net_of
from seqloom.models.classical._process_tree import TAU, Tree, flatten, text, unflatten
from seqloom.models.classical._replay import LOST, Bounds, Replay
from seqloom.models.classical._stream import Stream
from seqloom.models.classical._traces import traces

NOISES = (0.0, 0.1, 0.2, 0.5)
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
USUAL = 0.03  # the unigram's share where nothing chooses it
KNOWN = 4096  # states whose distributions are kept ready
LEARNT = ("tree", "noise", "share", "replay", "origin", "keys", "counts")


class InductiveMiner(ClassicalModel):
    """A process tree by the inductive miner, and frequencies of what followed where a replay stood."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalModel.Config):
        """Options of discovery, of the frequencies, and the bounds of replay."""

        noise: float | None = None
        """Edges rarer than this share of the most frequent one are left out (IMf), from 0 to below 1; None = that of
        0, 0.1, 0.2, 0.5 which predicts the validation data best, 0 without any."""
        share: float | None = None
        """s: what the unigram keeps for symbols that the model does not allow, above 0 and up to 1; None = chosen on
        validation data, 0.03 without any."""
        strength: float = 1.0
        """m: how many pseudo-events every state of the replay has; above 0."""
        pseudocount: float = 0.5
        """a: added to the count of every symbol in the unigram; above 0."""
        symbols: int = 500
        """The model is made of this many symbols, the most frequent; it skips the others."""
        moves: int = 3
        """Where a prefix does not fit: most symbols of the model left out at once, and how much more than the fewest
        moves another reading may cost."""
        markings: int = 16
        """Most markings that one state of the replay holds."""
        states: int = 20_000
        """Most states; a prefix that leads beyond them goes on as its last symbol alone."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError for an option outside its range."""
        super().__init__(sizes, config)
        own = self.config
        for name in ("strength", "pseudocount", "symbols", "moves", "markings", "states"):
            if not getattr(own, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(own, name)}")
        if own.noise is not None and not 0 <= own.noise < 1:
            raise ConfigError(f"noise must be from 0 to below 1, not {own.noise}")
        if own.share is not None and not 0 < own.share <= 1:
            raise ConfigError(f"share must be above 0 and at most 1, not {own.share}")
        self.tree, self.noise, self.share = TAU, own.noise or 0.0, own.share or USUAL
        self.origin = np.zeros((0, 2), np.int64)

    # What a user asks

    def deviations(self, ragged: Ragged) -> Ragged:
        """For every prefix the moves on the log or the model alone that its replay needed; 0 where it fits."""
        self._check_fitted()
        stream = Stream(ragged, self.sizes.vocabulary, closes=np.zeros(len(ragged), bool))
        misfit = stream.ragged(self._run(stream) & 1)
        flat = np.concatenate([np.cumsum(row) for row in misfit]) if len(misfit) else misfit.values
        return Ragged(flat.astype(np.int64), misfit.offsets)

    # What the base asks

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        return {
            "tree": np.array(flatten(self.tree), np.int64),
            "chosen": np.array([self.noise, self.share]),
            "unigram": self.count_V,
            "origin": self.origin,
            "keys": self.keys,
            "counts": self.counts,
        }

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        try:
            tree = unflatten(np.asarray(arrays["tree"], np.int64).reshape(-1, 3).tolist())
            self.noise, self.share = (float(x) for x in np.asarray(arrays["chosen"], float))
            count_V, keys, counts, origin = (
                np.asarray(arrays[n], np.int64) for n in ("unigram", "keys", "counts", "origin")
            )
            self._check(tree, count_V, keys, counts)
            self._hold(tree, count_V)
            for at, (state, symbol) in enumerate(origin.reshape(-1, 2).tolist()):
                if state >= at + 2 or symbol not in self.replay.ways or self.replay.edge(state, symbol) >> 1 != at + 2:
                    raise ValueError(f"state {at + 2} is not reached as it says")
            if len(keys) and keys[-1] >= len(self.replay.costs) * self.sizes.vocabulary:
                raise ValueError("counts of a state that there is not")
        except (KeyError, ValueError, IndexError) as problem:
            raise CheckpointError(f"the saved process model is not whole ({problem}): save it again") from None
        self.origin, self.keys, self.counts = origin, keys, counts
        self.fitted = True

    @property
    def held_parameters(self) -> int:
        """Counts of what followed, the unigram, and the nodes of the tree."""
        self._check_fitted()
        return len(self.counts) + int(predictable(self.sizes.vocabulary).sum()) + len(flatten(self.tree))

    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        log = traces(stream, self.config.symbols)
        held = valid if valid is not None and valid.predicted else None
        noises = NOISES if self.config.noise is None and held is not None else (self.config.noise or 0.0,)
        progress.stage("discover the process", len(noises), "noise")
        count_V = predicted_counts(stream, self.sizes.vocabulary)
        best, seen, kept = -np.inf, set[Tree](), dict[str, Any]()
        for noise in noises:
            tree = mine(log, noise)
            progress.advance()
            if tree in seen:
                continue
            seen.add(tree)
            self._hold(tree, count_V)
            self._count(stream)
            self.noise, score = noise, 0.0
            if held is not None:
                score, self.share = self._best_share(held)
            if score > best:
                best, kept = score, {name: getattr(self, name) for name in LEARNT}
        vars(self).update(kept)
        if len(self.replay.costs) < self.config.states:
            self.replay.trim(len(self.origin) + 2)  # validation data leave no states behind
        else:
            self._hold(self.tree, count_V)
            self._count(stream)
        self._known = {}

    def _best_share(self, held: Stream) -> tuple[float, float]:
        """Log-likelihood of held-out data, and the share of the unigram with which it is highest."""
        at_L = np.delete(np.arange(len(held.tokens)), held.first)
        own_L, base_L = self._own(held)[at_L], np.exp(self.log_V)[held.tokens[at_L]]
        shares = SHARES if self.config.share is None else (self.config.share,)
        with np.errstate(divide="ignore"):  # a special that nothing predicts is as bad with every share
            scores = [float(np.log((1 - share) * own_L + share * base_L).sum()) for share in shares]
        best = int(np.argmax(scores))
        return scores[best], shares[best]

    def _hold(self, tree: Tree, count_V: np.ndarray) -> None:
        """A tree without counts."""
        own = self.config
        self.tree, self.count_V, self.log_V = tree, count_V, smoothed(count_V, own.pseudocount)
        self.replay = Replay(tree, self.sizes.vocabulary, Bounds(own.moves, own.markings, own.states))
        self.keys = self.counts = np.zeros(0, np.int64)
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _count(self, stream: Stream) -> None:
        """How often which symbol followed in which state, and how training reached the states."""
        keep_L = np.ones(len(stream.tokens), bool)
        keep_L[stream.first] = False
        key_L = self._before(stream) * self.sizes.vocabulary + stream.tokens
        self.keys, self.counts = np.unique(key_L[keep_L], return_counts=True)
        self.origin = np.array(self.replay.origin, np.int64).reshape(-1, 2)
        self._known.clear()

    def _check(self, tree: Tree, count_V: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> None:
        if count_V.shape != (self.sizes.vocabulary,) or (count_V < 0).any():
            raise ValueError(f"not a count for each of {self.sizes.vocabulary} ids")
        if max(tree.leaves(), default=0) >= self.sizes.vocabulary or not 0 < self.share <= 1:
            raise ValueError("a symbol or a share outside its range")
        if keys.shape != counts.shape or (np.diff(keys) <= 0).any() or (keys < 0).any() or (counts < 1).any():
            raise ValueError("counts that are not in order")

    def _run(self, stream: Stream) -> np.ndarray:
        fresh_L = np.zeros(len(stream.tokens), bool)
        fresh_L[stream.first] = True
        return self.replay.run(stream.tokens, fresh_L)

    def _before(self, stream: Stream) -> np.ndarray:
        """The state in front of every token; of a first token none, which is 0."""
        state_L = np.concatenate([[LOST], self._run(stream)[:-1] >> 1]) if len(stream.tokens) else np.zeros(0, np.int64)
        state_L[stream.first] = LOST
        return state_L

    def _after(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        """What a state allows, and the probabilities of that."""
        if state not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            allowed = predictable(self.sizes.vocabulary).nonzero()[0] if state == LOST else self.replay.allowed(state)
            p = np.exp(self.log_V)[allowed]
            p *= self.config.strength / p.sum()
            if state != LOST:
                begin, end = np.searchsorted(self.keys, np.array([state, state + 1]) * self.sizes.vocabulary)
                symbols = self.keys[begin:end] % self.sizes.vocabulary
                at = np.minimum(np.searchsorted(allowed, symbols), len(allowed) - 1)
                fits = allowed[at] == symbols
                p[at[fits]] += self.counts[begin:end][fits]
            self._known[state] = allowed, p / p.sum()
        return self._known[state]

    def _own(self, stream: Stream) -> np.ndarray:
        """Probability of every token by the process alone; 0 where it is not allowed."""
        out_L = np.zeros(len(stream.tokens))
        state_L = self._before(stream)
        order_L = np.argsort(state_L, kind="stable")
        states, begins = np.unique(state_L[order_L], return_index=True)
        for state, at in zip(states.tolist(), np.split(order_L, begins[1:]), strict=True):
            allowed, p = self._after(state)
            found = np.minimum(np.searchsorted(allowed, stream.tokens[at]), len(allowed) - 1)
            out_L[at] = np.where(allowed[found] == stream.tokens[at], p[found], 0.0)
        return out_L

    def _score(self, stream: Stream) -> np.ndarray:
        with np.errstate(divide="ignore"):  # <bos> and its kin have probability 0
            return np.log((1 - self.share) * self._own(stream) + self.share * np.exp(self.log_V)[stream.tokens])

    def _start(self, rows: int) -> np.ndarray:
        return np.full((rows, 1), float(LOST))

    def _read(self, memory_BM: np.ndarray, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
        out_BT = np.empty(tokens_BT.shape)
        goes_on_T = np.zeros(tokens_BT.shape[1], bool)
        for b, length in enumerate(lengths_B.tolist()):
            state = int(memory_BM[b, 0])
            out_BT[b, :length] = self.replay.run(tokens_BT[b, :length], goes_on_T, state) >> 1
            out_BT[b, length:] = out_BT[b, length - 1] if length else state
        return out_BT[..., None]

    def _log_probs(self, memory_BM: np.ndarray) -> np.ndarray:
        states, row_B = np.unique(memory_BM[:, 0].astype(np.int64), return_inverse=True)
        p_UV = np.tile(self.share * np.exp(self.log_V), (len(states), 1))
        for p_V, state in zip(p_UV, states.tolist(), strict=True):
            allowed, p = self._after(state)
            p_V[allowed] += (1 - self.share) * p
        with np.errstate(divide="ignore"):
            return np.log(p_UV)[row_B]


def tree(model: InductiveMiner, names: Mapping[int, str] | None = None) -> str:
    """The discovered process tree as text: ``->( 'a', X( tau, 'b' ) )``, with the ids where no names are given."""
    model._check_fitted()
    return text(model.tree, names or {})


def net(model: InductiveMiner) -> Net:
    """The workflow net of the discovered tree: places, transitions and arcs."""
    model._check_fitted()
    return net_of(model.tree)
