"""The order of events: by case, then by time, stably. Whole numbers are sorted 16 bits at a time."""

import numpy as np


def order_of(codes: np.ndarray, times: np.ndarray | None) -> np.ndarray | None:
    """Stable order by case and time; None where the rows have it already."""
    step = np.diff(codes)
    if times is None:
        return None if (step >= 0).all() else _radix(codes, None)
    later = times[1:] >= times[:-1]
    if ((step > 0) | ((step == 0) & later)).all():
        return None
    if later.all():
        return _radix(codes, None)
    if times.dtype.kind == "f":
        return _radix(codes, np.argsort(times, kind="stable"))
    ticks = times.view(np.int64) - times.view(np.int64).min()
    return _radix(codes, _radix(ticks if (ticks % 1_000_000).any() else ticks // 1_000_000, None))


def _radix(keys: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Stable order of whole numbers from 0, 16 bits at a time: numpy sorts those by counting, in O(n)."""
    shift, most = 0, int(keys.max(initial=0))
    while order is None or most >> shift:
        digit = (keys >> shift).astype(np.uint16)
        order = np.argsort(digit, kind="stable") if order is None else order[np.argsort(digit[order], kind="stable")]
        shift += 16
    return order
