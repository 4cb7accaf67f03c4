"""Symmetric mean absolute percentage error, as the M4 competition counts it, as a share.

    mean over n, h of  2 |y_nh - f_nh| / (|y_nh| + |f_nh|)        from 0 to 2; M4 prints it times 100

Where both are 0 the forecast is right and costs 0. Near 0 any other forecast costs nearly 2, so it suits series that
stay away from 0; for others take the scaled error.
Shapes: N series, H steps ahead.
Source: Makridakis, Spiliotis and Assimakopoulos, "The M4 competition: 100,000 time series and 61 forecasting methods",
2020, section 2.3.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._forecasts import averaged, checked


@overload
def smape(forecasts: Any, targets: Any) -> float: ...
@overload
def smape(forecasts: Any, targets: Any, *, each: Literal[True]) -> np.ndarray: ...
def smape(forecasts: Any, targets: Any, *, each: bool = False) -> float | np.ndarray:
    """Mean over series and steps; with ``each``, of every series (N,).

    Args:
        forecasts: One number a step (N, H).
        targets: What came (N, H); NaN where nothing came.
        each: False for the mean over everything.
    """
    targets_NH, forecasts_NH = checked(targets, forecasts=forecasts)
    if forecasts_NH.shape != targets_NH.shape:
        raise ConfigError(f"forecasts of the shape {forecasts_NH.shape} do not fit targets {targets_NH.shape}")
    size_NH = np.abs(targets_NH) + np.abs(forecasts_NH)
    with np.errstate(invalid="ignore"):
        score_NH = 2 * np.abs(targets_NH - forecasts_NH) / np.where(size_NH == 0, 1.0, size_NH)
    diverged_NH = np.isinf(forecasts_NH) & ~np.isnan(targets_NH)  # infinity by infinity would count as nothing
    return averaged(np.where(diverged_NH, 2.0, score_NH), each)
