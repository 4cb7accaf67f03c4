"""How many steps a season has: the lag at which the changes of the training series repeat themselves.

    d_t = y_t - y_{t-1}        r_m = mean d_t d_{t-m} / mean d_t^2, over all series and channels
    period = the least m that is a peak of r within 5 % of the highest, if r_m stands out from noise; else 1

Changes and not values, since a series that drifts is like itself at every lag. A peak must be three standard errors
above 0, with Bartlett's formula for the error, so that a random walk has no season.
Shapes: L steps, P channels, M lags.
Source: Bartlett, "On the theoretical specification and sampling properties of autocorrelated time series", 1946.
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
    pairs = max(int(np.maximum(own.lengths - 1, 0).sum()), 1)
    error_M = np.sqrt((1 + 2 * np.concatenate([[0.0], np.cumsum(r_M[1:-1] ** 2)])) / pairs)
    peaks = peaks[r_M[peaks] > np.maximum(LEAST, 3 * error_M[peaks - 1])]
    if not len(peaks):
        return 1
    return int(peaks[r_M[peaks] >= NEAR * r_M[peaks].max()][0])


def autocorrelation(own: Ragged) -> np.ndarray:
    """Of the changes at lags 0 .. M, up to half of the longest series; empty where nothing changes."""
    series = [np.diff(y[-STEPS:], axis=0) for y in own[: min(len(own), SERIES)] if len(y) > 1]
    lags = min(LONGEST + 1, max((len(d) for d in series), default=0) // 2)
    if not lags:
        return np.zeros(0)
    middle_P = np.concatenate(series).mean(0)
    total_M, pairs_M = np.zeros(lags + 1), np.zeros(lags + 1)
    for change_LP in series:
        size = 1 << (2 * len(change_LP) - 1).bit_length()
        power = np.abs(np.fft.rfft(change_LP - middle_P, size, axis=0)) ** 2
        own_M = np.fft.irfft(power.sum(1), size)[: min(lags + 1, len(change_LP))]
        total_M[: len(own_M)] += own_M
        pairs_M[: len(own_M)] += len(change_LP) - np.arange(len(own_M))
    if not total_M[0] > 0:
        return np.zeros(0)
    return (total_M / np.maximum(pairs_M, 1)) / (total_M[0] / pairs_M[0])
