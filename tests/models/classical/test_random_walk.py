import numpy as np

from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.random_walk import RandomWalk

SIZES = Sizes(channels=2, values=1)


def test_by_hand():
    own = Ragged.of([[[1.0, 9], [4.0, 9], [2.0, 9]], [[7.0, 9]], np.zeros((0, 2))], np.float64)
    model = RandomWalk(SIZES)
    model.fit(own)
    mean, scale = model.moments(own)
    first = np.mean([1, 4, 2, 7])
    np.testing.assert_allclose(mean[:, 0], [first, 1, 4, first])
    change = np.sqrt((3**2 + 2**2) / 2)
    spread = np.std([1, 4, 2, 7])
    np.testing.assert_allclose(scale[:, 0], [spread, change, change, spread])
    after_mean, after_scale = model.following(own)
    np.testing.assert_allclose(after_mean[:, 0], [2, 7, first])
    np.testing.assert_allclose(after_scale[:, 0], [change, change, spread])


def test_it_recovers_the_step_of_a_walk_and_sees_no_future():
    steps = np.random.default_rng(0).normal(0, 0.7, (4000, 1))
    walk = np.cumsum(steps, axis=0)
    model = RandomWalk(Sizes(channels=1, values=1))
    model.fit(Ragged.of([walk], np.float64))
    assert abs(model.scale_P[0] - 0.7) < 0.03
    changed = walk.copy()
    changed[100:] += 5
    before, after = (model.moments(Ragged.of([one], np.float64))[0] for one in (walk, changed))
    np.testing.assert_array_equal(before[:101], after[:101])
