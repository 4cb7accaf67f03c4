"""Coverage of forecast intervals: how often what came lies between the two ends.

    mean over n, h of  1[low_nh <= y_nh <= high_nh]        0.8 is promised between the 0.1 and the 0.9 quantile

Wide enough intervals cover everything, so look at their width or the pinball loss beside it.
Shapes: N series, H steps ahead.
Source: Christoffersen, "Evaluating interval forecasts", 1998.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._forecasts import averaged, checked


@overload
def coverage(low: Any, high: Any, targets: Any) -> float: ...
@overload
def coverage(low: Any, high: Any, targets: Any, *, each: Literal[True]) -> np.ndarray: ...
def coverage(low: Any, high: Any, targets: Any, *, each: bool = False) -> float | np.ndarray:
    """Share of targets inside, ends included; with ``each``, of every series (N,).

    Args:
        low: Lower ends (N, H).
        high: Upper ends (N, H).
        targets: What came (N, H); NaN where nothing came.
        each: False for the share over everything.
    """
    targets_NH, low_NH, high_NH = checked(targets, low=low, high=high)
    if (low_NH > high_NH).any():
        row, step = np.argwhere(low_NH > high_NH)[0].tolist()
        raise ConfigError(f"the interval of series {row} at step {step + 1} ends below its beginning")
    inside_NH = (low_NH <= targets_NH) & (targets_NH <= high_NH)
    return averaged(np.where(np.isnan(targets_NH), np.nan, inside_NH), each)
