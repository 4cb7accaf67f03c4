"""Figures by how much a model had read: made where it is judged, kept with its arm, read as a frame.

    next, values   by prefix length: symbols (steps) before the one that is predicted
    classify       by the length of the sequence
    forecast       by how many steps ahead
    regress        by prefix length: symbols that had been read

Two figures are kept, by name: ``error``, the measure that decides, and ``right``. The units that are drawn for the
intervals are those that a model is judged by: pieces of few long sequences, origins of a forecast.
Shapes: N sequences, L predictions of all, H steps ahead, P predicted channels, B bins.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.evaluation._interval import Interval
from seqloom.evaluation.by_prefix_length import ByPrefixLength

ERROR, RIGHT = "error", "right"
FIELDS = ("first_B", "last_B", "sequences_B", "sum_UB", "count_UB")
PREFIX = "by_prefix"
Kept = Mapping[str, ByPrefixLength]


def of_steps(examples: Examples, error: Ragged, right_L: np.ndarray, offsets: np.ndarray, channels: int = 1) -> Kept:
    """Of what comes next: ``error`` by sequence, ``channels`` predictions a step; ``offsets`` of the units."""
    edges = error.offsets - error.offsets[0]
    step_L = (np.arange(error.total) - np.repeat(edges[:-1], error.lengths)) // channels
    step_L += np.repeat(~examples.opens, error.lengths)  # the first symbol of what goes on is read, not predicted
    return _both(error.flat, right_L, offsets, step_L)


def of_sequences(length_N: np.ndarray, error_N: np.ndarray, right_N: np.ndarray) -> Kept:
    """Of classes: one prediction a sequence, by its length."""
    return _both(error_N, right_N, np.arange(len(error_N) + 1), length_N)


def of_numbers(error: Ragged, right_L: np.ndarray, read_L: np.ndarray) -> Kept:
    """Of numbers that are told after every event, by how many events had been read."""
    return _both(error.flat, right_L, error.offsets, read_L)


def of_horizon(error_NHP: np.ndarray, right_NHP: np.ndarray) -> Kept:
    """Of forecasts, by step ahead; NaN where nothing came."""
    origins, horizon, channels = error_NHP.shape
    ahead_L = np.tile(np.repeat(np.arange(1, horizon + 1), channels), origins)
    return _both(error_NHP.ravel(), right_NHP.ravel(), np.arange(origins + 1) * horizon * channels, ahead_L)


def _both(error_L: np.ndarray, right_L: np.ndarray, offsets: np.ndarray, read_L: np.ndarray) -> Kept:
    if not len(error_L):
        return {}
    figures = ((ERROR, error_L), (RIGHT, right_L))
    return {name: ByPrefixLength.of(Ragged(own_L, offsets), read_L) for name, own_L in figures}


def arrays(kept: Kept) -> dict[str, np.ndarray]:
    """As they are saved: at most half a megabyte, by ``UNITS`` and the few bins."""
    return {f"{PREFIX}.{name}.{field}": getattr(own, field) for name, own in kept.items() for field in FIELDS}


def taken(tensors: dict[str, np.ndarray]) -> Kept:
    """Take out of saved arrays what ``arrays`` gave; nothing where an earlier version saved them."""
    kept = {}
    for name in (ERROR, RIGHT):
        found = {field: tensors.pop(f"{PREFIX}.{name}.{field}", None) for field in FIELDS}
        own: Any = {field: array for field, array in found.items() if array is not None}
        if len(own) == len(FIELDS):
            kept[name] = ByPrefixLength(**own)
    return kept


def average(seeds: Sequence[Kept]) -> Kept:
    """The mean over the trainings of one model; nothing where one of them has none."""
    if not seeds or not all(seeds):
        return {}
    return {name: ByPrefixLength.average([kept[name] for kept in seeds]) for name in (ERROR, RIGHT)}


def frame(models: Mapping[str, Kept], predicts: str) -> pl.DataFrame:
    """``model, from, to, sequences, symbols``, the measure, ``low, high, accuracy``: a row a model and bin."""
    measure = {"forecast": "mase", "regress": "mae"}.get(predicts, "bits")
    names = ("model", "from", "to", "sequences", "symbols", measure, "low", "high", "accuracy")
    whole = {"from", "to", "sequences", "symbols"}
    kinds = {name: pl.Int64 if name in whole else pl.Float64 for name in names} | {"model": pl.String}
    rows = [(model, *row) for model, kept in models.items() if kept for row in _rows(kept, predicts)]
    return pl.DataFrame(rows, schema=kinds, orient="row")


def intervals(kept: Kept, predicts: str) -> list[Interval]:
    """Of what decides, in every bin."""
    return [own._replace(low=max(own.low, floor(predicts))) for own in kept[ERROR].intervals()]


def floor(predicts: str) -> float:
    """What no interval falls below: few sequences spread it further than an error can be, or bits but of a density."""
    return -math.inf if predicts == "values" else 0.0


def _rows(kept: Kept, predicts: str) -> list[tuple[float | None, ...]]:
    error, right_B = kept[ERROR], kept[RIGHT].mean_B.tolist()
    edges = (error.first_B.tolist(), error.last_B.tolist(), error.sequences_B.tolist(), error.symbols_B.tolist())
    rows = zip(*edges, intervals(kept, predicts), right_B, strict=True)
    return [(*counts, *(_finite(one) for one in (*interval, right))) for *counts, interval, right in rows]


def _finite(figure: float) -> float | None:
    """None for what cannot be said: an interval of one sequence, whether it was right where nobody looked."""
    return figure if math.isfinite(figure) else None
