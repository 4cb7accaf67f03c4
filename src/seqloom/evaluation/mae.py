"""Mean absolute error: how far off a prediction is on average, in the unit of what is predicted.

    mean over n, h of  |y_nh - f_nh|        lower is better

The least that a constant can have is that of the median, so the median of a distribution is what should be told.
Shapes: N series (or sequences), H steps ahead (or prefixes).
Source: Willmott and Matsuura, "Advantages of the mean absolute error (MAE) over the root mean square error (RMSE) in
assessing average model performance", 2005.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.evaluation._forecasts import averaged, paired


@overload
def mae(forecasts: Any, targets: Any) -> float: ...
@overload
def mae(forecasts: Any, targets: Any, *, each: Literal[True]) -> np.ndarray: ...
def mae(forecasts: Any, targets: Any, *, each: bool = False) -> float | np.ndarray:
    """Mean over series and steps; with ``each``, of every series (N,).

    Args:
        forecasts: One number a step (N, H).
        targets: What came (N, H); NaN where nothing came.
        each: False for the mean over everything.
    """
    targets_NH, forecasts_NH = paired(forecasts, targets)
    return averaged(np.abs(targets_NH - forecasts_NH), each)
