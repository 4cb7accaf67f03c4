"""What metrics of forecasts share: N series, H steps ahead, and what came; NaN where nothing came (yet).

Every metric is a mean over what came, so a series with more steps counts more; ``each`` gives one mean a series, for
intervals by series.
"""

from typing import Any

import numpy as np

from seqloom.core.errors import ConfigError


def checked(targets: Any, **forecasts: Any) -> tuple[np.ndarray, ...]:
    """Targets and forecasts as float64 (N, H). ConfigError where they do not fit together."""
    targets_NH = np.asarray(targets, np.float64)
    if targets_NH.ndim != 2:
        raise ConfigError(f"targets have the shape {targets_NH.shape}, not (series, steps ahead)")
    if not targets_NH.size or np.isnan(targets_NH).all():
        raise ConfigError("there is nothing to evaluate: no target was given")
    if np.isinf(targets_NH).any():
        raise ConfigError(f"series {int(np.isinf(targets_NH).any(1).argmax())} has an infinite target")
    found = [targets_NH]
    for name, forecast in forecasts.items():
        forecast_NH = np.asarray(forecast, np.float64)
        if forecast_NH.shape[:2] != targets_NH.shape:
            raise ConfigError(f"{name} of the shape {forecast_NH.shape} do not fit targets {targets_NH.shape}")
        lacking_NH = np.isnan(forecast_NH.reshape(*targets_NH.shape, -1)).any(2) & ~np.isnan(targets_NH)
        if lacking_NH.any():
            row, step = np.argwhere(lacking_NH)[0].tolist()
            raise ConfigError(f"{name} of series {row} are not a number at step {step + 1}, where something came")
        found.append(forecast_NH)
    return tuple(found)


def paired(forecasts: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Targets and one forecast of each as float64 (N, H). ConfigError where they do not fit together."""
    targets_NH, forecasts_NH = checked(targets, forecasts=forecasts)
    if forecasts_NH.shape != targets_NH.shape:
        raise ConfigError(f"forecasts of the shape {forecasts_NH.shape} do not fit targets {targets_NH.shape}")
    return targets_NH, forecasts_NH


def averaged(score_NH: np.ndarray, each: bool) -> float | np.ndarray:
    """The mean over what is not NaN; with ``each`` by series, NaN where it has nothing."""
    there_NH = ~np.isnan(score_NH)
    if not each:
        if not there_NH.any():
            raise ConfigError("there is nothing to evaluate: where targets came, nothing can be measured")
        return float(score_NH[there_NH].mean())
    count_N = there_NH.sum(1)
    total_N = np.where(there_NH, score_NH, 0.0).sum(1)
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), np.nan)
