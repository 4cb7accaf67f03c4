"""Forecasts of several steps, judged from origins that roll through the test part, beside what came.

    | train | valid | test            |        a long series, cut by position: origins H steps apart, from the cut on
                    ^    ^    ^                 everything before an origin is known, the training part included
    scaled error = |y - median| / s,        s = mean |y_t - y_{t-m}| over the series' training part
                                                (over all training series where this one is new)

Whole test sequences are new series: their origins lie H steps apart, counted from the end. The season m is that of the
training part (``seasonal_naive``). Scales and the season are learnt from the training part alone.
Shapes: N origins, H steps ahead, P predicted channels, Q levels.
Source: Tashman, "Out-of-sample tests of forecasting accuracy: an analysis and review", 2000, for rolling origins;
Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006, for the scaled error.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.app import _by_prefix
from seqloom.app._values import ValueEngine
from seqloom.core.errors import ConfigError, DataError
from seqloom.data.examples import Examples
from seqloom.data.features import Features
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.evaluation.coverage import coverage
from seqloom.evaluation.pinball import pinball
from seqloom.evaluation.smape import smape
from seqloom.models.classical._season import period_of
from seqloom.training.prepare import PARTS, Prepared, encoded

EACH, MOST = 50, 500
"""Most origins of a series and of all together, evenly spread; a network samples 100 paths from each."""
HISTORY = 20_000
"""Last steps that a forecast is made from."""
LEVELS = (0.1, 0.5, 0.9)
UNEVEN = 0.01
"""Share of gaps unlike the usual one beyond which it is told."""


@dataclass(frozen=True)
class Origins:
    """Where forecasts begin, and what came."""

    past: Examples
    """Everything before each origin, scaled."""
    came_NHP: np.ndarray
    """Scaled; NaN behind the end of a series."""
    size_NP: np.ndarray
    """What absolute errors are divided by, scaled likewise."""


def origins(data: Prepared) -> Origins:
    """The origins of a test part. DataError where nothing lies behind any."""
    horizon, features = data.horizon, _features(data)
    series, begins, opens = _series(data, features)
    each = [_from(len(y), int(begin), horizon) for y, begin in zip(series, begins, strict=True)]
    places = [(row, at) for row, own in enumerate(each) for at in own]
    if not places:
        problem = "no test sequence has a value before what would be forecast"
        raise DataError(problem, file=data.parts["test"].source, mend="Bring longer series, or a file with --test.")
    places = [places[at] for at in _spread(len(places), MOST)]
    came_NHP = np.full((len(places), horizon, features.predicted), np.nan)
    for number, (row, at) in enumerate(places):
        own = series[row][at : at + horizon, : features.predicted]
        came_NHP[number, : len(own)] = own
    past = Ragged.of([series[row][max(at - HISTORY, 0) : at] for row, at in places], np.float32)
    opening = [bool(opens[row]) and at <= HISTORY for row, at in places]
    examples = Examples(None, values=past, opens=opening, closes=np.zeros(len(places), bool))
    size_RP = sizes_of_errors(data)
    known = len(size_RP) == len(series) and bool(begins.any())
    return Origins(examples, came_NHP, np.array([size_RP[row if known else -1] for row, _ in places]))


def sizes_of_errors(data: Prepared) -> np.ndarray:
    """Mean change from season to season of each training series, and of all of them in the last row (R + 1, P)."""
    predicted = _features(data).predicted
    values = data.train.whole().values
    rows = [] if values is None else [np.asarray(y[:, :predicted], np.float64) for y in values]
    season = period_of(Ragged.of(rows, np.float64)) if rows else 1
    changes = [np.abs(y[season:] - y[:-season]) for y in rows]
    every = np.concatenate([*changes, np.zeros((0, predicted))])
    own = np.array([c.mean(0) if len(c) else np.zeros(predicted) for c in [*changes, every]])
    own[-1] = np.where(own[-1] > 0, own[-1], 1.0)  # nothing ever changed: errors are told in the data's own units
    return np.where(own > 0, own, own[-1])


def judged(engine: ValueEngine, data: Prepared) -> tuple[dict[str, np.ndarray], np.ndarray, _by_prefix.Kept]:
    """Sums of every measure by origin (N,), ``mase`` first, how many values they are of (N,), and errors by step."""
    found, features = origins(data), _features(data)
    error_NHP, inside_NHP = np.zeros_like(found.came_NHP), np.zeros_like(found.came_NHP)
    _, told_NHPQ = engine.ahead(found.past, data.horizon, LEVELS)
    mean_P, scale_P = features.moments
    sums = {name: np.zeros(len(found.past)) for name in ("mase", "inside", "smape", "pinball")}
    for channel in range(features.predicted):
        came_NH, told_NHQ = found.came_NHP[..., channel], told_NHPQ[:, :, channel]
        low_NH, middle_NH, high_NH = np.moveaxis(told_NHQ, -1, 0)
        count_N = (~np.isnan(came_NH)).sum(1)
        error_NHP[..., channel] = np.abs(came_NH - middle_NH) / found.size_NP[:, channel, None]
        each_N1 = (one_NH.reshape(-1, 1) for one_NH in (low_NH, high_NH, came_NH))
        inside_NHP[..., channel] = coverage(*each_N1, each=True).reshape(came_NH.shape)
        sums["mase"] += np.nansum(np.abs(came_NH - middle_NH), 1) / found.size_NP[:, channel]
        sums["inside"] += coverage(low_NH, high_NH, came_NH, each=True) * count_N
        own_NH, target_NH = (one * scale_P[channel] + mean_P[channel] for one in (middle_NH, came_NH))
        sums["smape"] += smape(own_NH, target_NH, each=True) * count_N
        sums["pinball"] += pinball(told_NHQ, came_NH, LEVELS, each=True) * count_N
    return sums, (~np.isnan(found.came_NHP)).sum((1, 2)), _by_prefix.of_horizon(error_NHP, inside_NHP)


def remarks(whole: Sequences, data: Prepared) -> list[str]:
    """What somebody must know who asks for this horizon, in sentences."""
    said, test = [], data.parts["test"].lengths
    begins = _begins(data)
    room_N = test if begins.any() else test - 1
    short = int((room_N < data.horizon).sum())
    if short:
        which = f"{short} of {len(test)} test series are" if len(test) > 1 else "the test part is"
        said.append(f"{which} too short for {data.horizon} steps ahead: judged on the steps that there are")
    times = whole.times()
    if times is not None and (share := _unevenness(times)) > UNEVEN:
        gaps = f"{share:.0%} of the gaps are unlike the usual one"
        said.append(f"the times are not evenly spaced ({gaps}): a step ahead is a row, whatever the time between")
    return said


def _features(data: Prepared) -> Features:
    if data.features is None or not data.features.predicted:
        raise ConfigError("a forecast is of real values, and these data are symbols: name the numbers with --value")
    return data.features


def _begins(data: Prepared) -> np.ndarray:
    """Where the test part of each series begins; 0 for series that are new."""
    lengths = [data.parts[name].lengths for name in PARTS]
    by_position = data.split is not None and data.split.how == "position"
    return lengths[0] + lengths[1] if by_position else np.zeros(len(lengths[2]), np.int64)


def _series(data: Prepared, features: Features) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Each test series with its past (L, C), where its test part begins, and whether it is whole from its start."""
    begins = _begins(data)
    names = PARTS if begins.any() else ("test",)
    parts = [encoded(data.parts[name], None, features) for name in names]
    rows = [list(part.values) if part.values is not None else [] for part in parts]
    return [np.concatenate(own) for own in zip(*rows, strict=True)], begins, parts[0].opens


def _from(length: int, begin: int, horizon: int) -> list[int]:
    """Origins of one series; a short one has one, with fewer steps behind it."""
    if begin:
        found = list(range(begin, length - horizon + 1, horizon)) or ([begin] if length > begin else [])
    else:
        found = list(range(length - horizon, 0, -horizon))[::-1] or ([max(1, length // 2)] if length > 1 else [])
    return [found[at] for at in _spread(len(found), EACH)]


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many numbers below ``count``, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.int64)


def _unevenness(times: Ragged) -> float:
    """Share of gaps that differ by more than half from the middle one; months and leap years are even."""
    gaps = np.concatenate([np.diff(own.astype(np.float64)) for own in times if len(own) > 1] or [np.zeros(0)])
    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps):
        return 0.0
    usual = float(np.median(gaps))
    return float((np.abs(gaps - usual) > 0.5 * abs(usual)).mean())
