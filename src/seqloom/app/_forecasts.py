"""The answers of models of real values as frames, in the data's own units.

Shapes: N sequences, P predicted channels, S new steps.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from seqloom.app._answers import repeated
from seqloom.app._values import HIGH, LOW, ValueEngine
from seqloom.core.errors import ConfigError
from seqloom.data.examples import Examples
from seqloom.data.features import Features
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences


@dataclass(frozen=True)
class Ahead:
    """The next value: its mean and the central 80 %, one number a channel, and the values that led to it."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    state: tuple[tuple[float, ...], ...]


def features_of(engine: ValueEngine) -> Features:
    """The scales of a model of values."""
    if engine.blueprint.features is None:
        raise ConfigError("a model of real values needs its scales")
    return engine.blueprint.features


def forecast(engine: ValueEngine, asked: Sequences, examples: Examples, horizon: int = 0) -> pl.DataFrame:
    """``id, channel, mean, low, high``: the next value, and between what it lies in 80 of 100 cases.

    With a horizon ``id, step, channel, mean, low, high``: so many next values.
    """
    if horizon:
        return _several(engine, asked, examples, horizon)
    features = features_of(engine)
    mean_P, scale_P = features.moments
    own_NP3 = engine.forecast(examples) * scale_P[:, None] + mean_P[:, None]
    columns = {name: own_NP3[..., at].ravel() for at, name in enumerate(("mean", "low", "high"))}
    channels = {"channel": list(features.names) * len(asked)}
    ids = repeated(asked.ids, np.full(len(asked), features.predicted))
    return pl.DataFrame({"id": ids, **channels, **columns}, schema_overrides={"id": pl.String, "channel": pl.String})


def _several(engine: ValueEngine, asked: Sequences, examples: Examples, horizon: int) -> pl.DataFrame:
    features, count = features_of(engine), len(asked)
    (mean_P, scale_P), each = features.moments, horizon * features.predicted
    mean_NHP, told_NHPQ = engine.ahead(examples, horizon, (LOW, HIGH))
    scaled = {"mean": mean_NHP, "low": told_NHPQ[..., 0], "high": told_NHPQ[..., 1]}
    frame = {
        "id": repeated(asked.ids, np.full(count, each)),
        "step": np.tile(np.repeat(np.arange(1, horizon + 1), features.predicted), count),
        "channel": list(features.names) * (horizon * count),
        **{name: (own_NHP * scale_P + mean_P).ravel() for name, own_NHP in scaled.items()},
    }
    return pl.DataFrame(frame, schema_overrides={"id": pl.String, "step": pl.Int64, "channel": pl.String})


def surprise(engine: ValueEngine, bits: Ragged, asked: Sequences, examples: Examples) -> pl.DataFrame:
    """``id, position, channel, bits`` of every predicted value."""
    names = features_of(engine).names
    steps_N = bits.lengths // len(names)
    begins_N = 1 + ~examples.opens
    at = [
        np.repeat(np.arange(first, first + steps), len(names)) for first, steps in zip(begins_N, steps_N, strict=True)
    ]
    return pl.DataFrame(
        {
            "id": repeated(asked.ids, bits.lengths),
            "position": np.concatenate(at) if at else [],
            "channel": list(names) * int(steps_N.sum()),
            "bits": bits.flat,
        },
        schema_overrides={"id": pl.String, "channel": pl.String, "position": pl.Int64},
    )


def written(
    engine: ValueEngine, ids: list[str], examples: Examples, steps: int, *, temperature: float, seed: int
) -> pl.DataFrame:
    """``id, position`` and one column a channel: the values that were written behind each sequence."""
    if temperature < 0:
        raise ConfigError(f"temperature must be 0 (the middle of every distribution) or above, not {temperature}")
    features = features_of(engine)
    mean_P, scale_P = features.moments
    new_NSP = engine.write(examples, steps, temperature=temperature, seed=seed) * scale_P + mean_P
    lengths_N = np.array([0 if e.values is None else len(e.values) for e in examples], np.int64)
    columns = {name: new_NSP[..., at].ravel() for at, name in enumerate(features.names)}
    position = (lengths_N[:, None] + np.arange(1, steps + 1)).ravel()
    frame = {"id": repeated(ids, np.full(len(ids), steps)), "position": position, **columns}
    return pl.DataFrame(frame, schema_overrides={"id": pl.String, "position": pl.Int64})


def ahead(engine: ValueEngine, value: Any, state: Any) -> Ahead:
    """Feed one value (one number a channel) and see what comes next."""
    features = features_of(engine)
    mean_P, scale_P = features.moments
    before = () if state is None else tuple(state)
    if value is not None:
        new = tuple(np.atleast_1d(np.asarray(value, np.float64)).tolist())
        if len(new) != features.predicted or not np.isfinite(new).all():
            raise ConfigError(f"a step has a finite number for each of {', '.join(features.names)}, not {value!r}")
        before = (*before, new)
    scaled_LC = np.zeros((len(before), features.width), np.float32)
    scaled_LC[:, features.predicted] = 1
    if before:
        scaled_LC[:, : features.predicted] = (np.array(before) - mean_P) / scale_P
    examples = Examples(None, values=Ragged.of([scaled_LC], np.float32), closes=[False])
    own_P3 = engine.forecast(examples)[0] * scale_P[:, None] + mean_P[:, None]
    mean, low, high = (tuple(own_P3[:, at].tolist()) for at in range(3))
    return Ahead(mean, low, high, before)
