import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.evaluation import _resample
from seqloom.evaluation.bootstrap import bootstrap


def test_agrees_with_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    counts = rng.integers(1, 30, 80)
    sums = rng.normal(2, 1, 80) * counts
    ours = bootstrap(sums, counts, draws=20_000)
    theirs = stats.bootstrap(
        (sums, counts),
        lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.mean == pytest.approx(sums.sum() / counts.sum())
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_sequences_are_drawn_not_tokens():
    """Ten tokens that say the same are one observation: the interval does not shrink."""
    values = np.random.default_rng(0).normal(size=50)
    alone, tenfold = bootstrap(values), bootstrap(values * 10, np.full(50, 10))
    assert tenfold.low == pytest.approx(alone.low)
    assert tenfold.high == pytest.approx(alone.high)


@pytest.mark.parametrize("count", [3, 6, 20])
def test_few_sequences_give_intervals_as_wide_as_students(count):
    from scipy import stats

    rng, held, widths = np.random.default_rng(count), 0, []
    for seed in range(200):
        values = rng.normal(size=count)
        found = bootstrap(values, draws=1000, seed=seed)
        held += found.low <= 0 <= found.high
        t = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
        widths.append((found.high - found.low) / (2 * t))
    assert held / 200 >= 0.89
    assert np.mean(widths) == pytest.approx(1, abs=0.15)


def test_many_sequences_are_pooled_without_changing_the_width():
    values = np.random.default_rng(0).exponential(size=20_000)
    pooled = _resample.pooled(values[:, None], 0)
    assert pooled.shape == (_resample.UNITS, 1)
    assert pooled.sum() == pytest.approx(values.sum())
    found = bootstrap(values, draws=4000)
    wanted = 2 * 1.96 * values.std() / np.sqrt(20_000)
    assert found.high - found.low == pytest.approx(wanted, rel=0.1)


def test_same_seed_same_interval_and_empty_sequences_change_nothing():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(values) == bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap([*values, 0.0], [*np.ones(30), 0]) == bootstrap(values)


def test_one_sequence_says_nothing_about_others():
    found = bootstrap([3.0], [2])
    assert found.mean == 1.5
    assert np.isnan([found.low, found.high]).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        bootstrap([1.0, 2.0], [1])
    with pytest.raises(ConfigError, match="at least one prediction"):
        bootstrap([1.0], [0])
    with pytest.raises(ConfigError, match="level 2"):
        bootstrap([1.0], level=2)
