"""Mean absolute scaled error: the error beside that of repeating the last season, measured on the training part.

    mean over n, h of  |y_nh - f_nh| / s_n,    s_n = mean over t > m of |x_nt - x_n,t-m|        below 1 is better

It has no unit, so series of different sizes can be averaged. A training series that repeats itself exactly (a
constant one) or has no more than m values has nothing to scale by: it is left out, and its own value is NaN.
Shapes: N series, H steps ahead, m steps of a season.
Source: Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006, section 3.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation._forecasts import averaged, paired


@overload
def mase(forecasts: Any, targets: Any, train: Ragged | Sequence[Any], *, season: int = 1) -> float: ...
@overload
def mase(
    forecasts: Any, targets: Any, train: Ragged | Sequence[Any], *, season: int = 1, each: Literal[True]
) -> np.ndarray: ...
def mase(
    forecasts: Any, targets: Any, train: Ragged | Sequence[Any], *, season: int = 1, each: bool = False
) -> float | np.ndarray:
    """Mean over series and steps; with ``each``, of every series (N,).

    Args:
        forecasts: One number a step (N, H).
        targets: What came (N, H); NaN where nothing came.
        train: What came before, one array of any length a series; NaN where a value is missing.
        season: Steps of a season: 7 for days of a week; 1 compares with the last value.
        each: False for the mean over everything.
    """
    targets_NH, forecasts_NH = paired(forecasts, targets)
    if len(train) != len(targets_NH):
        raise ConfigError(f"{len(targets_NH)} series need as many training series, not {len(train)}")
    if season < 1:
        raise ConfigError(f"a season has at least 1 step, not {season}")
    scale_N = np.array([_scale(np.asarray(series, np.float64), season) for series in train])
    if np.isnan(scale_N).all():
        raise ConfigError(f"no training series changes from one season of {season} to the next: nothing to scale by")
    return averaged(np.abs(targets_NH - forecasts_NH) / scale_N[:, None], each)


def _scale(series_T: np.ndarray, season: int) -> float:
    """Mean absolute error of the seasonal naive forecast; NaN where there is none, or it is never wrong."""
    change_T = np.abs(series_T[season:] - series_T[:-season])
    change_T = change_T[~np.isnan(change_T)]
    scale = float(change_T.mean()) if len(change_T) else 0.0
    return scale if scale > 0 else float("nan")
