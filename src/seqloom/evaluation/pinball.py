"""Pinball loss of forecast quantiles: what a distribution costs that is told by a few of its quantiles.

    mean over n, h, q of  max(tau_q (y - f), (tau_q - 1) (y - f)),    y = y_nh, f = f_nhq        lower is better

Too low costs tau a unit, too high 1 - tau, so the least expected loss is at the quantile tau itself. At tau = 1/2 it
is half the absolute error; over many equally spaced levels twice its mean is the continuous ranked probability score.
Shapes: N series, H steps ahead, Q levels.
Source: Koenker and Bassett, "Regression quantiles", 1978.
"""

from typing import Any, Literal, overload

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.evaluation._forecasts import averaged, checked


@overload
def pinball(quantiles: Any, targets: Any, levels: Any) -> float: ...
@overload
def pinball(quantiles: Any, targets: Any, levels: Any, *, each: Literal[True]) -> np.ndarray: ...
def pinball(quantiles: Any, targets: Any, levels: Any, *, each: bool = False) -> float | np.ndarray:
    """Mean loss over series, steps and levels; with ``each``, of every series (N,).

    Args:
        quantiles: Forecasts (N, H, Q).
        targets: What came (N, H); NaN where nothing came.
        levels: Between 0 and 1 (Q,).
        each: False for the mean over everything.
    """
    targets_NH, quantiles_NHQ = checked(targets, quantiles=quantiles)
    levels_Q = np.asarray(levels, np.float64)
    if levels_Q.ndim != 1 or quantiles_NHQ.shape != (*targets_NH.shape, len(levels_Q)) or not len(levels_Q):
        raise ConfigError(f"quantiles of the shape {quantiles_NHQ.shape} need one level each, not {levels_Q.shape}")
    if not ((levels_Q > 0) & (levels_Q < 1)).all():
        raise ConfigError(f"levels must lie between 0 and 1, not {levels_Q.min():g} to {levels_Q.max():g}")
    miss_NHQ = targets_NH[:, :, None] - quantiles_NHQ
    return averaged(np.maximum(levels_Q * miss_NHQ, (levels_Q - 1) * miss_NHQ).mean(2), each)
