"""Root mean square error: how far off a prediction is, large errors counting more than often.

    sqrt( mean over n, h of  (y_nh - f_nh)^2 )        lower is better

The least that a constant can have is that of the mean. It is never below the mean absolute error; far above, a few
predictions are very wrong.
Shapes: N series (or sequences), H steps ahead (or prefixes).
Source: Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006, section 2.1.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.evaluation._forecasts import averaged, paired


@overload
def rmse(forecasts: Any, targets: Any) -> float: ...
@overload
def rmse(forecasts: Any, targets: Any, *, each: Literal[True]) -> np.ndarray: ...
def rmse(forecasts: Any, targets: Any, *, each: bool = False) -> float | np.ndarray:
    """Over all series and steps; with ``each``, of every series (N,).

    Args:
        forecasts: One number a step (N, H).
        targets: What came (N, H); NaN where nothing came.
        each: False for one figure over everything.
    """
    targets_NH, forecasts_NH = paired(forecasts, targets)
    mean = averaged(np.square(targets_NH - forecasts_NH), each)
    return np.sqrt(mean) if isinstance(mean, np.ndarray) else float(np.sqrt(mean))
