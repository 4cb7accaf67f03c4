import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.white_noise import WhiteNoise

stats = pytest.importorskip("scipy.stats")

SIZES = Sizes(channels=3, values=2)


def rows(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return Ragged.of([rng.normal(2, 3, (n, 3)) for n in lengths], np.float64)


def test_moments_are_scipys_fit_of_a_normal():
    own = rows(5, 0, 9)
    model = WhiteNoise(SIZES)
    model.fit(own)
    mean, scale = model.moments(own)
    assert mean.shape == scale.shape == (14, 2)
    for channel in range(2):
        want = stats.norm.fit(own.flat[:, channel])
        np.testing.assert_allclose((mean[0, channel], scale[0, channel]), want)
    after = model.following(own)
    np.testing.assert_allclose(after[0], np.tile(mean[0], (3, 1)))


def test_a_value_that_is_context_alone_is_not_counted():
    own = Ragged.of([[[1e6, 0, 0], [1.0, 0, 0]], [[3.0, 0, 0]]], np.float64)
    model = WhiteNoise(SIZES)
    model.fit(own, opens=[False, True])
    assert model.mean_P[0] == 2


def test_constant_and_missing_data_keep_the_density_finite():
    for own in (Ragged.of([np.ones((4, 3))], np.float64), Ragged.of([np.zeros((0, 3))], np.float64)):
        model = WhiteNoise(SIZES)
        model.fit(own)
        assert (model.scale_P > 0).all()
        assert np.isfinite(model.mean_P).all()


def test_what_was_learnt_is_loaded_and_what_does_not_fit_refused():
    model, again = WhiteNoise(SIZES), WhiteNoise(SIZES)
    model.fit(rows(6))
    again.load(model.arrays())
    np.testing.assert_array_equal(again.moments(rows(2))[0], model.moments(rows(2))[0])
    for broken in ({}, {**model.arrays(), "scale_P": np.zeros(2)}, {**model.arrays(), "mean_P": np.array([np.nan, 1])}):
        with pytest.raises(CheckpointError, match="a number for each of 2 channels"):
            again.load(broken)


def test_symbols_and_an_unfitted_model_are_refused():
    with pytest.raises(ConfigError, match="these data are symbols"):
        WhiteNoise(Sizes(vocabulary=9))
    with pytest.raises(ConfigError, match="has learnt nothing yet"):
        WhiteNoise(SIZES).moments(rows(2))
