"""ALERGIA: a prefix tree of the sequences whose alike nodes are merged into a probabilistic automaton.

    differ(a, b):  |f_a / n_a - f_b / n_b| > sqrt(ln(2 / eps) / 2) (1 / sqrt(n_a) + 1 / sqrt(n_b))  for some symbol,
                   or differ(a w, b w) for a symbol w that followed both
    p(w | q) = (c(q, w) + m u(w)) / (c(q) + m)

A small eps merges more: two nodes must differ much not to become one state. The end is a symbol like any other, so
that c(q, <eos>) / c(q) is the probability of stopping in q. Published are the frequencies alone; here m pseudo-events
of the smoothed unigram u keep some mass for what a state has not seen, and a walk without an edge goes on where the
most used edge with that symbol leads (``_automaton.py``). eps and m are those, of the ones given, that predict the
validation data best. The automaton does not depend on the order of the sequences.

Shapes: V vocabulary.
Source: Carrasco and Oncina, "Learning stochastic regular grammars by means of a state merging method", 1994;
the order of the merges and the test on the tree as counted are those of AALpy (Muskardin et al., 2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.models.classical._automaton import AutomatonModel
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._counts import predicted_counts
from seqloom.models.classical._merging import merge_states, prefix_tree
from seqloom.models.classical._stream import Stream


class Alergia(AutomatonModel):
    """Probabilistic automaton by state merging."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalModel.Config):
        """Options of the merging and of the smoothing."""

        eps: tuple[float, ...] = (0.05, 0.0005, 0.005, 0.5, 1.0)
        """Significance of the test; the best on validation data, else the first; above 0, at most 2."""
        strengths: tuple[float, ...] = (1.0, 0.1, 4.0, 16.0, 64.0)
        """m: pseudo-events of the unigram in every state; the best on validation data, else the first; above 0."""
        pseudocount: float = 0.5
        """Added to the count of every symbol in the unigram; above 0."""
        states: int = 1000
        """Most states; a node that differs from all of them then goes to the nearest, and a note says so."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError where an option lies outside its range."""
        super().__init__(sizes, config)
        own = self.config
        if not own.eps or not all(0 < eps <= 2 for eps in own.eps):
            raise ConfigError(f"eps must lie above 0 and be at most 2, not {own.eps}")
        if not own.strengths or not all(m > 0 for m in (*own.strengths, own.pseudocount)):
            raise ConfigError("strengths and pseudocount must be above 0, and there must be a strength")
        if own.states < 1:
            raise ConfigError(f"states must be at least 1, not {own.states}")
        self.eps: float = own.eps[0]

    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        own, vocabulary = self.config, self.sizes.vocabulary
        self.count_V = predicted_counts(stream, vocabulary)
        tree = prefix_tree(stream, vocabulary)
        held = valid if valid is not None and valid.predicted else None
        grid, strengths = (own.eps, own.strengths) if held is not None else (own.eps[:1], own.strengths[:1])
        progress.stage("merge states", len(grid), "eps")
        tried = []
        for eps in grid:
            merged = merge_states(tree, eps, own.states, vocabulary)
            for strength in strengths:
                self._keep(merged.automaton, strength)
                score = 0.0 if held is None else held.ragged(self._score(held)).values.sum()
                tried.append((score, eps, merged, strength))
            progress.advance()
        _, self.eps, merged, strength = max(tried, key=lambda trial: trial[0])
        self._keep(merged.automaton, strength)
        if merged.forced:
            progress.note(
                f"the automaton reached its {own.states} states: {merged.forced} places that differ from all of them "
                "went to the nearest"
            )
        if merged.cut:
            progress.note("merging took so much work that its last tests compared states without their successors")

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "eps": np.array([self.eps])}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        eps = np.asarray(arrays.get("eps", ()), np.float64)
        if eps.shape != (1,) or not 0 < eps <= 2:
            raise CheckpointError("the saved automaton does not say its eps: save the model again")
        self.eps = float(eps[0])
        super().load(arrays)
