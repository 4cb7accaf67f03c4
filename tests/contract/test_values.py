"""Every discovered classical model of real values obeys the contract of ``ValueModel``."""

import numpy as np
import pytest

from seqloom.core import discovery
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models import classical

NAMES = [name for name in classical.names() if "values" in classical.get(name).tasks]
SIZES = Sizes(channels=4, values=2)


def series(*lengths, seed=0):
    """Two waves with noise, and two columns that are no values."""
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        t = np.arange(length)[:, None]
        own = np.sin(2 * np.pi * t / 6 + rng.uniform(0, 6, 2)) + rng.normal(0, 0.2, (length, 2))
        made.append(np.concatenate([own, np.ones((length, 1)), rng.normal(size=(length, 1))], 1))
    return Ragged.of(made, np.float64)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    made = classical.get(request.param)(SIZES)
    made.fit(series(40, 33, 0, 1, 28))
    return made


def test_one_step_ahead_is_what_follows(model):
    own = series(30, 0, 1, 2, 7, seed=2)
    mean_NHP, scale_NHP = model.ahead(own, 5)
    assert mean_NHP.shape == scale_NHP.shape == (5, 5, 2)
    assert np.isfinite(mean_NHP).all()
    assert (scale_NHP > 0).all()
    after_mean, after_scale = model.following(own)
    np.testing.assert_allclose(mean_NHP[:, 0], after_mean, atol=1e-10)
    np.testing.assert_allclose(scale_NHP[:, 0], after_scale, atol=1e-10)
    nearer, _ = model.ahead(own, 2)
    np.testing.assert_allclose(nearer, mean_NHP[:, :2], atol=1e-10)


def test_no_step_sees_what_comes_after_it_and_no_sequence_another(model):
    own = series(30, 9, seed=3)
    changed = [own[0].copy(), own[1]]
    changed[0][17:] += 9
    before, after = (np.stack(model.moments(r)) for r in (own, Ragged.of(changed, np.float64)))
    np.testing.assert_array_equal(before[:, :18], after[:, :18])
    np.testing.assert_array_equal(before[:, 30:], after[:, 30:])
    assert not np.array_equal(before[:, 18:30], after[:, 18:30]) or type(model).__name__ == "WhiteNoise"


def test_what_was_learnt_is_loaded_and_what_does_not_fit_refused(model):
    own = series(20, 3, seed=4)
    again = model.config.build(SIZES)
    arrays = model.arrays()
    again.load(arrays)
    for one, other in zip(model.ahead(own, 4), again.ahead(own, 4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.held_parameters == sum(array.size for array in arrays.values())
    for name, array in arrays.items():
        for broken in ({**arrays, name: np.full_like(array, np.nan)}, {n: a for n, a in arrays.items() if n != name}):
            with pytest.raises(CheckpointError):
                model.config.build(SIZES).load(broken)


def test_constant_one_step_and_no_series_keep_every_number_finite(model):
    kind = type(model)
    for own in (
        Ragged.of([np.ones((9, 4))] * 2, np.float64),
        series(1),
        series(0),
        Ragged(np.zeros((0, 4)), np.zeros(1)),
    ):
        fresh = kind(SIZES)
        fresh.fit(own)
        for mean, scale in (fresh.moments(own), fresh.ahead(own, 3), fresh.ahead(series(8, 0), 30)):
            assert np.isfinite(mean).all()
            assert (scale > 0).all()
            assert np.isfinite(scale).all()


def test_a_horizon_of_nothing_is_refused(model):
    with pytest.raises(ConfigError, match="at least 1 step"):
        model.ahead(series(3), 0)


def test_no_value_model_is_one_of_symbols():
    assert {"white_noise", "random_walk", "seasonal_naive", "linear", "exponential_smoothing"} <= set(NAMES)
    assert all(not {"next", "classify"} & set(classical.get(name).tasks) for name in NAMES)
    assert set(NAMES) <= set(discovery.names("models/classical"))
