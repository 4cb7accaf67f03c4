import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation import by_prefix_length
from seqloom.evaluation.bootstrap import bootstrap
from seqloom.evaluation.by_prefix_length import ALONE, ENOUGH, ByPrefixLength

lengths = st.lists(st.integers(0, 70), min_size=1, max_size=60).filter(any)
begins = st.integers(0, 30)


def ragged(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return Ragged.of([rng.exponential(size=length) for length in lengths], np.float64)


def by_hand(figures, prefixes, first, last):
    """Sum, predictions and sequences of one bin: a loop over everything."""
    total, count, sequences = 0.0, 0, set()
    for number, (own, before) in enumerate(zip(figures, prefixes, strict=True)):
        for value, prefix in zip(own, before, strict=True):
            if first <= prefix <= last and not np.isnan(value):
                total, count = total + value, count + 1
                sequences.add(number)
    return total, count, len(sequences)


def check_bins(found, figures, prefixes):
    whole = Ragged.of(prefixes, np.int64).flat
    assert found.first_B[0] == whole.min()
    assert found.last_B[-1] == whole.max()
    assert (found.first_B[1:] == found.last_B[:-1] + 1).all()
    assert (found.first_B <= found.last_B).all()
    for at, (first, last) in enumerate(zip(found.first_B, found.last_B, strict=True)):
        total, count, sequences = by_hand(figures, prefixes, first, last)
        assert found.sum_UB[:, at].sum() == pytest.approx(total)
        assert (found.symbols_B[at], found.sequences_B[at]) == (count, sequences)


@given(lengths, begins)
def test_every_prediction_is_in_one_bin_and_no_bin_is_thin(own, begin):
    figures, prefixes = ragged(own), [np.arange(begin, begin + length) for length in own]
    found = ByPrefixLength.of(figures, np.concatenate(prefixes))
    check_bins(found, figures, prefixes)
    assert found.symbols_B @ found.mean_B == pytest.approx(figures.flat.sum())
    there = sum(length > 0 for length in own)
    assert found.sequences_B.min() >= min(ENOUGH, there / 2)
    for first, last in zip(found.first_B.tolist(), found.last_B.tolist(), strict=True):
        reached = sum(begin <= first < begin + length for length in own)
        if first < ALONE and reached >= ENOUGH and last != found.last_B[-1]:
            assert first == last


@given(lengths, st.randoms(use_true_random=False))
def test_prefixes_may_begin_anywhere_and_stay_for_several_predictions(own, random):
    """Pieces of long sequences, several channels of one step, one prediction a sequence."""
    prefixes = [np.sort([random.randrange(90) for _ in range(length)]).astype(np.int64) for length in own]
    figures = ragged(own)
    check_bins(ByPrefixLength.of(figures, np.concatenate(prefixes)), figures, prefixes)


def test_bins_by_hand():
    even = ByPrefixLength.of(ragged([100] * 30))
    assert even.first_B.tolist() == [*range(ALONE), 20, 30, 45, 67]
    assert even.last_B[-1] == 99
    pieces = ByPrefixLength.of(ragged([10] * 100), np.arange(1000))
    assert pieces.first_B.tolist() == [0, 191, 381, 571]
    assert (pieces.last_B[-1], pieces.sequences_B.tolist()) == (999, [20, 20, 20, 43])
    tail = ByPrefixLength.of(ragged([3] * 30 + [9] * 10))
    assert list(zip(tail.first_B.tolist(), tail.last_B.tolist(), strict=True)) == [(0, 0), (1, 1), (2, 8)]
    assert tail.sequences_B.tolist() == [40, 40, 40]
    classes = ByPrefixLength.of(ragged([1] * 60), np.repeat([5, 6, 40], [25, 10, 25]))
    assert list(zip(classes.first_B.tolist(), classes.last_B.tolist(), strict=True)) == [(5, 5), (6, 40)]


def test_intervals_are_those_of_the_sequences_that_reach_a_bin():
    own = [5 + k % 40 for k in range(200)]
    figures = ragged(own)
    found = ByPrefixLength.of(figures)
    for at, interval in enumerate(found.intervals(level=0.9, draws=500, seed=3)):
        inside = [row[found.first_B[at] : found.last_B[at] + 1] for row in figures]
        inside = [row for row in inside if len(row)]
        want = bootstrap([row.sum() for row in inside], [len(row) for row in inside], level=0.9, draws=500, seed=3)
        assert interval == pytest.approx(want)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    held = []
    for seed in range(60):
        found = ByPrefixLength.of(ragged([6] * 40, seed)).intervals(draws=400, seed=seed)
        held += [interval.low <= 1 <= interval.high for interval in found]
    assert len(held) == 360
    assert np.mean(held) == pytest.approx(0.95, abs=0.05)


def test_two_models_are_paired_by_sequence():
    """What makes a sequence hard for both hides no difference; it begins at the fourth symbol."""
    rng = np.random.default_rng(0)
    hard = [np.repeat(rng.exponential(3.0), 8) + 0.1 * rng.standard_normal(8) for _ in range(50)]
    first = ByPrefixLength.of(Ragged.of(hard, np.float64))
    second = ByPrefixLength.of(Ragged.of([own + 0.2 * (np.arange(8) > 2) for own in hard], np.float64))
    gap = second.minus(first)
    assert gap.mean_B == pytest.approx(second.mean_B - first.mean_B)
    assert gap.apart().tolist() == [False] * 3 + [True] * 5
    assert all(one.low < 0.2 < one.high or one.mean == pytest.approx(0.2) for one in gap.intervals()[3:])
    assert first.intervals()[5].high > second.mean_B[5]  # unpaired, the two could not be told apart
    assert not first.minus(first).apart().any()


def test_of_many_bins_none_differs_by_chance():
    wrong = 0
    for seed in range(60):
        gap = np.random.default_rng(seed).standard_normal((40, 15))
        found = ByPrefixLength.of(Ragged.of(list(gap), np.float64))
        wrong += found.apart(draws=2000).any()
    assert wrong <= 7  # 3 are expected; 8 or more have a chance of 1 %


def test_what_is_not_known_is_left_out_and_bins_stay():
    figures = ragged([6] * 30)
    values = figures.flat.copy()
    values[:90] = np.nan
    values[5::6] = np.nan
    part, whole = ByPrefixLength.of(Ragged(values, figures.offsets)), ByPrefixLength.of(figures)
    assert part.first_B.tolist() == whole.first_B.tolist()
    assert part.sequences_B.tolist() == part.symbols_B.tolist() == [15] * 5 + [0]
    assert part.mean_B[:5] == pytest.approx(values.reshape(30, 6)[15:, :5].mean(0))
    assert np.isnan(part.mean_B[5])
    assert np.isnan(part.intervals()[5]).all()
    assert not part.apart()[5]


def test_infinite_bits_are_told_and_have_no_interval():
    values = np.ones(60)
    values[3] = np.inf
    found = ByPrefixLength.of(Ragged(values, np.arange(0, 61, 2)))
    assert found.mean_B.tolist() == [1.0, np.inf]
    assert np.isnan(found.intervals()[1].low)


def test_many_sequences_are_pooled_and_nothing_is_lost(monkeypatch):
    figures = ragged([1 + k % 30 for k in range(900)])
    pooled = ByPrefixLength.of(figures)
    assert pooled.sum_UB.shape[0] == by_prefix_length.UNITS
    monkeypatch.setattr(by_prefix_length, "UNITS", 900)
    whole = ByPrefixLength.of(figures)
    for name in ("first_B", "sequences_B", "symbols_B", "mean_B"):
        assert getattr(pooled, name) == pytest.approx(getattr(whole, name))
    widths = [np.mean([one.high - one.low for one in own.intervals(draws=500)[:15]]) for own in (pooled, whole)]
    assert widths[0] == pytest.approx(widths[1], rel=0.05)


def test_blocks_are_seamless(monkeypatch):
    figures = ragged([0, 1, 30, 0, 5, 70, 3] * 7)
    values = figures.flat.copy()
    values[::5] = np.nan
    figures = Ragged(values, figures.offsets)
    whole = ByPrefixLength.of(figures)
    for size in (1, 7, 64):
        monkeypatch.setattr(by_prefix_length, "BLOCK", size)
        own = ByPrefixLength.of(figures)
        assert own.sequences_B.tolist() == whole.sequences_B.tolist()
        assert own.count_UB.tolist() == whole.count_UB.tolist()
        assert own.sum_UB == pytest.approx(whole.sum_UB)


def test_the_mean_over_seeds():
    runs = [ByPrefixLength.of(ragged([4] * 25, seed)) for seed in range(3)]
    mean = ByPrefixLength.average(runs)
    assert mean.mean_B == pytest.approx(np.mean([own.mean_B for own in runs], 0))


def test_what_does_not_fit_is_refused():
    figures = ragged([2, 3])
    with pytest.raises(ConfigError, match="one number a prediction, and some"):
        ByPrefixLength.of(Ragged.of([[]], np.float64))
    with pytest.raises(ConfigError, match="one whole number a prediction"):
        ByPrefixLength.of(figures, [0, 1])
    with pytest.raises(ConfigError, match="one whole number a prediction"):
        ByPrefixLength.of(figures, [0.5] * 5)
    with pytest.raises(ConfigError, match="must not fall"):
        ByPrefixLength.of(figures, [0, 1, 2, 1, 2])
    with pytest.raises(ConfigError, match="these are others"):
        ByPrefixLength.of(figures).minus(ByPrefixLength.of(ragged([3, 3])))
    with pytest.raises(ConfigError, match="no training"):
        ByPrefixLength.average([])
