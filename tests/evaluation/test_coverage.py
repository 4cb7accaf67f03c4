import math

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation.coverage import coverage


def test_a_normal_interval_covers_what_the_error_function_says():
    draws = np.random.default_rng(0).normal(size=(100, 400))
    for width in (0.5, 1.0, 2.0):
        ends = np.full_like(draws, width)
        assert coverage(-ends, ends, draws) == pytest.approx(math.erf(width / math.sqrt(2)), abs=0.01)


def test_ends_count_as_inside_and_gaps_not_at_all():
    low, high = np.zeros((2, 3)), np.ones((2, 3))
    targets = [[0.0, 1.0, 2.0], [np.nan, -1.0, np.nan]]
    assert coverage(low, high, targets) == 0.5
    assert coverage(low, high, targets, each=True).tolist() == [pytest.approx(2 / 3), 0.0]


def test_crossed_ends_and_other_shapes_are_refused():
    with pytest.raises(ConfigError, match="series 1 at step 2 ends below"):
        coverage([[0, 0], [0, 1]], [[1, 1], [1, 0]], np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="do not fit targets"):
        coverage([[0.0]], [[1.0]], [[0.0, 0.0]])
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        coverage([[0.0]], [[1.0]], [[np.nan]])
    with pytest.raises(ConfigError, match="infinite"):
        coverage([[0.0]], [[1.0]], [[np.inf]])
