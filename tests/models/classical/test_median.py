import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.median import Median

SIZES = Sizes(vocabulary=9, targets=1)
DATA = Ragged.of([[6, 7], [], [8, 8, 6]])
NUMBERS = Ragged.of([[4.0, 0.0], [], [9.0, np.nan, 1.0]], np.float64)
KNOWN = [4.0, 4.0, 0.0, 9.0, 9.0, 1.0]  # before the first event the number is that after it


def fitted():
    model = Median(SIZES)
    model.fit(DATA, NUMBERS)
    return model


def test_the_quantiles_are_those_of_all_numbers_whatever_the_sequence():
    levels = [0.05, 0.1, 0.5, 0.9, 0.95]
    want = np.quantile(KNOWN, levels)
    told = fitted().quantiles(DATA, levels)
    assert told.shape == (5, 5)
    np.testing.assert_allclose(told, np.tile(want, (5, 1)), rtol=1e-12)
    np.testing.assert_allclose(fitted().following(Ragged.of([[], [3]]), levels), np.tile(want, (2, 1)), rtol=1e-12)


def test_between_two_kept_levels_the_rest_is_interpolated():
    low, high = np.quantile(KNOWN, [0.5, 0.55])
    assert fitted().following(Ragged.of([[6]]), [0.52])[0, 0] == pytest.approx(low + 0.4 * (high - low))


def test_what_was_learnt_is_taken_back():
    again = Median(SIZES)
    again.load(fitted().arrays())
    np.testing.assert_array_equal(again.quantiles(DATA, [0.5]), fitted().quantiles(DATA, [0.5]))
    with pytest.raises(CheckpointError, match="table of 19 columns"):
        again.load({"quantiles": np.zeros((1, 3))})


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="learnt nothing"):
        Median(SIZES).quantiles(DATA, [0.5])
    with pytest.raises(ConfigError, match="one number after every event, not 0"):
        Median(Sizes(vocabulary=9))
    with pytest.raises(ConfigError, match="every event needs one number"):
        Median(SIZES).fit(DATA, Ragged.of([[1.0]], np.float64))
    with pytest.raises(ConfigError, match="no number to learn"):
        Median(SIZES).fit(Ragged.of([[6]]), Ragged.of([[np.nan]], np.float64))
    with pytest.raises(ConfigError, match=r"from 0.05 to 0.95 are kept, not \[0.01\]"):
        fitted().quantiles(DATA, [0.01])
