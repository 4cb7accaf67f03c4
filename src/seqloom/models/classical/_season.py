"""How many steps a season has: the lag at which the changes of the training series repeat themselves.

    d_t = y_t - y_{t-1}, less its linear trend        r_m = mean d_t d_{t-m} / mean d_t^2, over all series and channels
    period = the least m that is a peak of r as high as the highest (within 5 %, or what noise makes), if r_m stands
             out from noise; else 1

Changes and not values, since a series that drifts is like itself at every lag. A peak must be four standard errors
above 0, since of some hundred lags one is three above by chance, and r must have been lower before it.
Shapes: L steps, P channels, M lags.
Source: Box and Jenkins, "Time series analysis: forecasting and control", 1970, chapters 2 and 9.
"""

import numpy as np

from seqloom.data.ragged import Ragged

LONGEST = 400
"""Most steps of a season that is looked for: a year of days, two weeks of hours."""
SERIES, STEPS = 200, 20_000
"""How much is looked at: so many series, the last steps of each."""
LEAST, NEAR = 0.15, 0.95


def period_of(own: Ragged) -> int:
    """Steps of a season; 1 = none was found."""
    r_M = autocorrelation(own)
    if len(r_M) < 4:
        return 1
    peaks = np.flatnonzero((r_M[2:-1] >= r_M[1:-2]) & (r_M[2:-1] >= r_M[3:])) + 2
    pairs_M = np.maximum(own.lengths[:SERIES, None] - 1 - np.arange(len(r_M)), 0).sum(0)
    risen_M = r_M - np.minimum.accumulate(r_M)
    least_M = np.maximum(4 / np.sqrt(np.maximum(pairs_M, 1)), LEAST)
    peaks = peaks[(r_M[peaks] > least_M[peaks]) & (risen_M[peaks] > LEAST)]
    if not len(peaks):
        return 1
    best = int(peaks[r_M[peaks].argmax()])
    return int(peaks[r_M[peaks] >= r_M[best] - max((1 - NEAR) * r_M[best], 1 / np.sqrt(pairs_M[best]))][0])


def autocorrelation(own: Ragged) -> np.ndarray:
    """Of the changes at lags 0 .. M, up to half of the longest series; empty where nothing changes."""
    series = [_level(np.diff(y[-STEPS:], axis=0)) for y in own[: min(len(own), SERIES)] if len(y) > 1]
    lags = min(LONGEST + 1, max((len(d) for d in series), default=0) // 2)
    if not lags:
        return np.zeros(0)
    total_M, pairs_M = np.zeros(lags + 1), np.zeros(lags + 1)
    for change_LP in series:
        size = 1 << (2 * len(change_LP) - 1).bit_length()
        power = np.abs(np.fft.rfft(change_LP, size, axis=0)) ** 2
        own_M = np.fft.irfft(power.sum(1), size)[: min(lags + 1, len(change_LP))]
        total_M[: len(own_M)] += own_M
        pairs_M[: len(own_M)] += len(change_LP) - np.arange(len(own_M))
    if not total_M[0] > 1e-12 * pairs_M[0]:
        return np.zeros(0)
    return (total_M / np.maximum(pairs_M, 1)) / (total_M[0] / pairs_M[0])


def _level(change_LP: np.ndarray) -> np.ndarray:
    """Changes without their mean and linear trend: a series that speeds up evenly has no season."""
    centred_L = np.arange(len(change_LP)) - (len(change_LP) - 1) / 2
    change_LP = change_LP - change_LP.mean(0)
    return change_LP - np.outer(centred_L, centred_L @ change_LP / max(float(centred_L @ centred_L), 1.0))
