import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data.batching import Batching, first_fit

WIDTHS = st.lists(st.integers(1, 12), max_size=120)
CHOICES = st.builds(
    Batching,
    rows=st.integers(1, 5),
    tokens=st.sampled_from([0, 12, 40]),
    window=st.just(12),
    packed=st.booleans(),
    bucketed=st.booleans(),
)


@given(CHOICES, WIDTHS, st.integers(0, 3))
def test_every_example_comes_exactly_once_and_no_batch_is_too_large(batching, widths, epoch):
    batches = batching.epoch(widths, 5, epoch)
    assert sorted(i for indices, _ in batches for i in indices) == list(range(len(widths)))
    for indices, rows in batches:
        fill = np.bincount(rows, weights=np.asarray(widths)[indices])
        assert (fill > 0).all(), "row numbers have a gap"
        if batching.packed:
            assert fill.max() <= batching.window
        else:
            assert len(fill) == len(indices)
        columns = batching.window if batching.packed else fill.max()
        most = batching.tokens // columns if batching.tokens else batching.rows
        assert len(fill) <= max(most, 1)


def as_lists(batches):
    return [(indices.tolist(), rows.tolist()) for indices, rows in batches]


@given(CHOICES, WIDTHS)
def test_the_same_key_gives_the_same_batches(batching, widths):
    assert as_lists(batching.epoch(widths, 1, 2)) == as_lists(batching.epoch(widths, 1, 2))


@pytest.mark.parametrize("options", [{}, {"bucketed": False}, {"packed": True, "window": 50}, {"tokens": 200}])
def test_seed_and_epoch_change_the_order(options):
    widths = np.random.default_rng(0).integers(1, 50, 300)
    batching = Batching(**options)
    orders = {str(as_lists(batching.epoch(widths, seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def padding(batching, widths):
    return sum(widths[indices].max() * len(indices) for indices, _ in batching.epoch(widths, 0, 0)) / widths.sum() - 1


def test_buckets_save_padding():
    widths = np.random.default_rng(0).integers(1, 200, 2000)
    assert padding(Batching(rows=16), widths) < 0.03 < 0.5 < padding(Batching(rows=16, bucketed=False), widths)


def test_packed_rows_are_nearly_full():
    widths = np.random.default_rng(0).integers(1, 60, 3000)
    batches = Batching(rows=16, window=128, packed=True).epoch(widths, 0, 0)
    rows = sum(rows.max() + 1 for _, rows in batches)
    assert widths.sum() / (rows * 128) > 0.97


def naive_first_fit(widths, capacity):
    free, row = [], {}
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        at = next((r for r, room in enumerate(free) if room >= widths[i]), len(free))
        free += [capacity] * (at == len(free))
        free[at] -= widths[i]
        row[i] = at
    return [row[i] for i in range(len(widths))], len(free)


@given(WIDTHS)
def test_first_fit_equals_the_loop_over_examples(widths):
    rows, count = first_fit(np.asarray(widths, np.int64), 12)
    assert (rows.tolist(), count) == naive_first_fit(widths, 12)


def test_one_wide_example_stands_alone():
    batches = Batching(tokens=10).epoch([3, 50, 3], 0, 0)
    assert [1] in [indices.tolist() for indices, _ in batches]


def test_sizes_that_make_no_batch_are_refused():
    for options in ({"rows": 0}, {"rows": -1}, {"packed": True}, {"packed": True, "window": 9, "tokens": 8}):
        with pytest.raises(ConfigError):
            Batching(**options)
    with pytest.raises(ConfigError, match=r"example 1 takes 9 columns.*Examples.windows\(8\)"):
        Batching(packed=True, window=8).epoch([1, 9], 0, 0)
