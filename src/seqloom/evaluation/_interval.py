"""A figure with the range that it would lie in on other sequences."""

from typing import NamedTuple


class Interval(NamedTuple):
    """Mean and both ends; NaN where the data cannot say."""

    mean: float
    low: float
    high: float
