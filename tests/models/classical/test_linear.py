import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.linear import Linear, _averaging

ONE = Sizes(channels=1, values=1)


def ragged(*rows):
    return Ragged.of([np.asarray(row, np.float64)[:, None] for row in rows], np.float64)


def autoregression(length, seed=0, a=(1.2, -0.5), noise=1.0):
    rng = np.random.default_rng(seed)
    y = np.zeros(length + 50)
    for t in range(2, len(y)):
        y[t] = a[0] * y[t - 1] + a[1] * y[t - 2] + rng.normal(0, noise)
    return y[50:]


def test_without_ridge_it_is_numpys_least_squares_at_every_step_ahead():
    own = [autoregression(60), autoregression(35, seed=1)]
    model = Linear(ONE, Linear.Config(lookback=6, horizon=4, ridge=0.0, smoothing=3))
    model.fit(ragged(*own))
    fresh = autoregression(20, seed=2)
    got = model.ahead(ragged(fresh), 4)[0][0, :, 0]
    for h in range(1, 5):
        rows, targets = [], []
        for y in own:
            for t in range(len(y) - h):
                window = np.array([y[max(t - k, 0)] for k in range(5, -1, -1)])
                rows.append([*(window[:-1] - y[t]), y[t], 1.0])
                targets.append(y[t + h] - y[t])
        solved = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
        want = fresh[-1] + np.array([*(fresh[-6:-1] - fresh[-1]), fresh[-1], 1.0]) @ solved
        assert got[h - 1] == pytest.approx(want, abs=1e-5)


def test_the_moving_average_is_pandas_rolling_mean_inside_and_repeats_the_ends():
    x = np.random.default_rng(0).normal(size=12)
    padded = np.concatenate([[x[0]] * 2, x, [x[-1]] * 2])
    np.testing.assert_allclose(_averaging(12, 5) @ x, np.convolve(padded, np.ones(5) / 5, "valid"))


def test_it_recovers_an_autoregression_and_its_spread():
    model = Linear(ONE, Linear.Config(lookback=8))
    model.fit(ragged(*[autoregression(300, seed=s) for s in range(10)]))
    fresh = autoregression(2000, seed=99)
    mean, scale = model.moments(ragged(fresh))
    want = 1.2 * fresh[1:-1] - 0.5 * fresh[:-2]
    assert np.abs(mean[2:, 0] - want).mean() < 0.08
    assert scale[5, 0] == pytest.approx(1.0, abs=0.03)
    # the variance of two steps ahead is 1 + a_1^2, of many that of the process
    _, ahead = model.ahead(ragged(fresh), 60)
    assert ahead[0, 1, 0] == pytest.approx(np.sqrt(1 + 1.2**2), rel=0.04)
    assert ahead[0, 20, 0] == pytest.approx(fresh.std(), rel=0.08)
    assert ahead[0, 59, 0] > ahead[0, 23, 0]


def test_the_lookback_and_the_ridge_are_chosen_on_the_ends_of_the_series():
    rng = np.random.default_rng(0)
    season = rng.normal(size=60)
    wave = [season[(np.arange(400) + s) % 60] + rng.normal(0, 0.1, 400) for s in (0, 11)]
    model = Linear(ONE, Linear.Config(horizon=3))
    model.fit(ragged(*wave))
    assert model.weight_PHK.shape[2] >= 96
    noise = Linear(ONE, Linear.Config(horizon=3))
    noise.fit(ragged(*[np.cumsum(rng.normal(size=120)) for _ in range(2)]))
    assert noise.weight_PHK.shape[2] == 24
    named = Linear(ONE, Linear.Config(horizon=3, lookback=7))
    named.fit(ragged(*wave))
    assert named.weight_PHK.shape[2] == 7


def test_few_windows_give_a_random_walk_and_nonsense_is_refused():
    model = Linear(ONE)
    model.fit(ragged([1.0, 3.0, 2.0]))
    mean, scale = model.ahead(ragged([5.0, 7.0]), 30)
    np.testing.assert_allclose(mean, 7.0)
    np.testing.assert_allclose(scale[0, :, 0], scale[0, 0, 0] * np.sqrt(np.arange(1, 31)), rtol=0.5)
    with pytest.raises(ConfigError, match="positive sizes and an odd moving average"):
        Linear(ONE, Linear.Config(smoothing=4))
