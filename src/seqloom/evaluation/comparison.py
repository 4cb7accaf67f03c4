"""Which models differ, and which differences are noise: a table with ties said to be ties.

    mean_m  = sum_i s_mi / sum_i n_i                    s_mi: what model m scores on sequence i, averaged over its seeds
    mean*_m = mean_m of sequences drawn with replacement, the same ones for all models        (test sequences)
              spread as Student's t where sequences are few (see ``_resample``)
              + what other training seeds would change, by Student's t (see ``_seeds``)       (training seeds)
    p_ab    = 2 min(share of mean*_a - mean*_b <= 0, share >= 0), then Holm's correction over all pairs

Pairing by sequence removes what makes a sequence hard for every model. Few seeds tell little about their spread, so
the models share one unless a model's stands out. A model with one run (counting is deterministic) has no second term.
Shapes: N sequences, S seeds, M models, R replicates.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Holm, "A simple sequentially rejective
multiple test procedure", 1979; Bouthillier et al., 2021, arXiv:2103.03098, for both sources of noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation._holm import holm, odds
from seqloom.evaluation._resample import means, pooled
from seqloom.evaluation._seeds import seed_noise

DRAWS_A_PAIR = 100  # so that Holm's smallest p can fall below any usual level


@dataclass(frozen=True, kw_only=True)
class Comparison(Value):
    """A table of models, best first, and every pair of them."""

    @dataclass(frozen=True, kw_only=True)
    class Row(Value):
        """One model."""

        name: str
        mean: float | None = None
        """Over all predictions and seeds; None where a sequence got no finite score."""
        low: float | None = None
        """Ends of the interval over test sequences and seeds; None where the data cannot say."""
        high: float | None = None
        spread: float | None = None
        """Standard deviation over the seeds; None for one run."""
        seeds: int = 1
        ties: tuple[str, ...] = ()
        """Models that it cannot be told apart from."""
        best: bool = False
        """The best mean, or tied with it."""

    @dataclass(frozen=True, kw_only=True)
    class Pair(Value):
        """Two models: the better mean first."""

        first: str
        second: str
        difference: float
        """Mean of the first minus mean of the second."""
        low: float | None = None
        """Ends of the interval of the difference, not corrected for the number of pairs."""
        high: float | None = None
        p: float | None = None
        """Chance of such a difference among equals, corrected for the number of pairs."""
        tie: bool = True

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    level: float
    """1 - this is the rate at which a tie is called a difference, over all pairs together."""
    notes: tuple[str, ...] = ()
    """What a reader must know, in sentences."""

    @classmethod
    def of(
        cls,
        sums: Mapping[str, Any],
        counts: Any = None,
        *,
        better: Literal["lower", "higher"] = "lower",
        level: float = 0.95,
        draws: int = 10_000,
        seed: int = 0,
    ) -> Self:
        """Compare models on the same test sequences.

        Args:
            sums: What each sequence adds up to, by model: (S, N), one row a seed, or (N,) for one run.
            counts: Predictions of each sequence (N,); None = 1 each.
            better: Whether lower means (bits, Brier) or higher ones (accuracy) are better.
            level: See ``Comparison.level``; also of the intervals.
            draws: Replicates at least.
            seed: The same seed gives the same table.
        """
        if better not in ("lower", "higher") or not 0 < level < 1:
            raise ConfigError(f"better is 'lower' or 'higher' and level between 0 and 1, not {better!r} and {level}")
        runs = {name: np.atleast_2d(np.asarray(values, np.float64)) for name, values in sums.items()}
        counts_N = _counts(runs, counts)
        keep_N = counts_N > 0
        runs = {name: values[:, keep_N] for name, values in runs.items()}
        by_seed = {name: values.sum(1) / counts_N.sum() for name, values in runs.items()}
        means = {name: float(mean_S.mean()) for name, mean_S in by_seed.items()}
        sign = 1 if better == "lower" else -1
        order = sorted(runs, key=lambda name: (not np.isfinite(means[name]), sign * means[name]))
        sound = [name for name in order if np.isfinite(runs[name]).all()]
        pairs = list(combinations(sound, 2))
        draws = max(draws, DRAWS_A_PAIR * len(pairs))
        drawn = _draw({name: runs[name] for name in sound}, counts_N[keep_N], draws, seed)
        made = _pairs(pairs, means, drawn, level)
        rows = tuple(_row(name, by_seed[name], drawn, made, level) for name in order)
        rows = tuple(_crowned(row, rows[0]) for row in rows)
        return cls(rows=rows, pairs=made, level=level, notes=tuple(_notes(runs, drawn, sound, len(pairs), level)))

    @staticmethod
    def totals(values: Sequence[Ragged]) -> tuple[np.ndarray, np.ndarray]:
        """Values of every prediction by sequence, one Ragged a seed -> sums (S, N) and counts (N,)."""
        sums = []
        for ragged in values:
            edges = ragged.offsets - ragged.offsets[0]
            number_L = np.repeat(np.arange(len(ragged)), ragged.lengths)
            sums.append(np.bincount(number_L, ragged.flat, len(edges) - 1))
        return np.stack(sums), values[0].lengths

    def __getitem__(self, name: str) -> Row:
        """The row of a model."""
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise ConfigError(f"no model is called {name!r} here; there are {', '.join(found)}")
        return found[name]

    def tied(self, first: str, second: str) -> bool:
        """True where two models cannot be told apart."""
        return first == second or second in self[first].ties


def _counts(runs: Mapping[str, np.ndarray], counts: Any) -> np.ndarray:
    if not runs:
        raise ConfigError("there is no model to compare")
    shapes = {name: values.shape for name, values in runs.items()}
    lengths = {shape[-1] for shape in shapes.values()}
    if len(lengths) > 1 or any(len(shape) != 2 or not shape[0] for shape in shapes.values()):
        raise ConfigError(f"models must be scored on the same sequences, one row a seed; the shapes are {shapes}")
    counts_N = np.ones(lengths.pop()) if counts is None else np.asarray(counts, np.float64)
    if counts_N.shape != (next(iter(shapes.values()))[1],) or (counts_N < 0).any() or not counts_N.sum() > 0:
        raise ConfigError(f"counts of the shape {counts_N.shape} must be one positive number a sequence")
    return counts_N


def _draw(runs: dict[str, np.ndarray], counts_N: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Means that could have come out instead (R,), by model; nothing where one sequence is all there is."""
    if len(counts_N) < 2 or not runs:
        return {}
    columns = [*(values.mean(0) for values in runs.values()), counts_N]
    drawn = dict(zip(runs, means(pooled(np.stack(columns, 1), seed), draws, seed).T, strict=True))
    by_seed = {name: values.sum(1) / counts_N.sum() for name, values in runs.items()}
    for name, noise_R in seed_noise(by_seed, draws, seed).items():
        drawn[name] = drawn[name] + noise_R
    return drawn


def _pairs(
    pairs: Sequence[tuple[str, str]], means: Mapping[str, float], drawn: Mapping[str, np.ndarray], level: float
) -> tuple[Comparison.Pair, ...]:
    if not drawn:
        return tuple(Comparison.Pair(first=a, second=b, difference=means[a] - means[b]) for a, b in pairs)
    raw = [odds(drawn[a] - drawn[b]) for a, b in pairs]
    made = []
    for (a, b), p in zip(pairs, holm(raw), strict=True):
        low, high = _ends(drawn[a] - drawn[b], level)
        gap = means[a] - means[b]
        made.append(
            Comparison.Pair(first=a, second=b, difference=gap, low=low, high=high, p=p, tie=bool(p > 1 - level))
        )
    return tuple(made)


def _row(
    name: str,
    mean_S: np.ndarray,
    drawn: Mapping[str, np.ndarray],
    pairs: Sequence[Comparison.Pair],
    level: float,
) -> Comparison.Row:
    low, high = _ends(drawn[name], level) if name in drawn else (None, None)
    several = len(mean_S) > 1 and bool(np.isfinite(mean_S).all())
    ties = [pair.second if pair.first == name else pair.first for pair in pairs if pair.tie and _of(pair, name)]
    return Comparison.Row(
        name=name,
        mean=float(mean_S.mean()) if np.isfinite(mean_S).all() else None,
        low=low,
        high=high,
        spread=float(np.std(mean_S, ddof=1)) if several else None,
        seeds=len(mean_S),
        ties=tuple(ties),
    )


def _of(pair: Comparison.Pair, name: str) -> bool:
    return name in (pair.first, pair.second)


def _crowned(row: Comparison.Row, first: Comparison.Row) -> Comparison.Row:
    return replace(row, best=row.mean is not None and (row.name == first.name or first.name in row.ties))


def _ends(values_R: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _notes(
    runs: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray], sound: Sequence[str], pairs: int, level: float
) -> list[str]:
    notes = []
    if pairs and drawn:
        notes.append(
            f"A difference is called a tie unless it stands out from test sequences and seeds at {1 - level:.0%}, "
            f"corrected for {pairs} {'pair' if pairs == 1 else 'pairs'} (Holm)."
        )
    elif pairs:
        notes.append("One test sequence alone says nothing about others: every difference is called a tie.")
    single = [name for name in sound if len(runs[name]) == 1]
    if single and drawn:
        notes.append(f"One run of {', '.join(single)}: what another seed would change there is not counted.")
    notes += [
        f"{name} gave some test sequence no finite score and is compared with nobody."
        for name in runs
        if name not in sound
    ]
    return notes
