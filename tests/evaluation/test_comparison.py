import json

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.evaluation._holm import holm
from seqloom.evaluation.comparison import Comparison

RNG = np.random.default_rng(0)
HARD = RNG.gamma(2, 1, 300)  # what makes a sequence hard for everybody


def test_pairing_shows_a_difference_that_intervals_hide():
    """0.05 is far below what the sequences spread by, but every sequence agrees on it."""
    better = HARD - 0.05 + RNG.normal(0, 0.05, 300)
    found = Comparison.of({"plain": HARD, "better": better})
    assert [row.name for row in found.rows] == ["better", "plain"]
    assert found["better"].high > found["plain"].low
    assert not found.tied("better", "plain")
    assert found["better"].best
    assert not found["plain"].best
    unpaired = Comparison.of({"plain": HARD, "better": RNG.permutation(better)})
    assert unpaired.tied("plain", "better")
    assert all(row.best for row in unpaired.rows)


def test_noise_over_seeds_makes_ties():
    """The same mean difference: told apart where the seeds agree, tied where they do not."""
    calm = HARD + np.array([-0.01, 0.0, 0.01])[:, None]
    wild = HARD - 0.3 + np.array([-0.5, 0.0, 0.5])[:, None]
    assert not Comparison.of({"calm": calm, "other": calm - 0.3}).tied("calm", "other")
    found = Comparison.of({"calm": calm, "wild": wild})
    assert found.tied("wild", "calm")
    assert found["wild"].spread == pytest.approx(0.5)
    assert found["calm"].spread == pytest.approx(0.01)
    assert found["wild"].seeds == 3


def test_p_agrees_with_the_paired_t_test():
    from scipy import stats

    a, b = HARD, HARD + RNG.normal(0.02, 0.2, 300)
    pair = Comparison.of({"a": a, "b": b}, draws=40_000).pairs[0]
    assert pair.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)
    assert pair.low < pair.difference < pair.high


def test_seeds_alone_agree_with_the_t_test():
    """With every sequence alike only the seeds are left."""
    from scipy import stats

    seeds = np.array([1.0, 1.4, 1.1, 1.3])
    found = Comparison.of({"a": np.tile(seeds[:, None], 50), "b": np.full(50, 1.5)}, draws=40_000)
    assert found.pairs[0].p == pytest.approx(stats.ttest_1samp(seeds, 1.5).pvalue, abs=0.01)


def test_models_share_their_seeds_spread_as_in_the_pooled_t_test():
    from scipy import stats

    a, b = np.array([1.0, 1.4, 1.1]), np.array([1.5, 1.7])
    found = Comparison.of({"a": np.tile(a[:, None], 50), "b": np.tile(b[:, None], 50)}, draws=40_000)
    assert found.pairs[0].p == pytest.approx(stats.ttest_ind(a, b, equal_var=True).pvalue, abs=0.01)


def test_two_seeds_each_tell_a_large_difference_apart_and_a_wild_model_spoils_nobody():
    pairs = {f"m{i}": HARD + np.array([i - 0.01, i + 0.01])[:, None] for i in range(4)}
    wild = {"wild": HARD + 9 + np.array([-8.0, 8.0])[:, None]}
    found = Comparison.of({**pairs, **wild})
    assert not found.tied("m0", "m1")
    assert not found.tied("m2", "m3")
    assert found.tied("m0", "wild")


def test_equal_models_with_two_seeds_are_rarely_told_apart():
    rng, wrong = np.random.default_rng(2), 0
    for seed in range(60):
        common = rng.normal(size=40)
        runs = {f"m{i}": common + rng.normal(size=(2, 1)) for i in range(5)}
        wrong += any(not pair.tie for pair in Comparison.of(runs, draws=2000, seed=seed).pairs)
    assert wrong <= 8


def test_equal_models_are_rarely_told_apart():
    """Eight models that differ by noise alone: some pair stands out in at most about 5 per cent of the tables."""
    rng, wrong = np.random.default_rng(1), 0
    for seed in range(60):
        runs = {f"m{i}": rng.normal(size=(1, 40)) for i in range(8)}
        wrong += any(not pair.tie for pair in Comparison.of(runs, draws=2000, seed=seed).pairs)
    assert wrong <= 8


@pytest.mark.parametrize("count", [3, 5, 10])
def test_few_test_sequences_call_few_equal_models_different(count):
    rng, wrong = np.random.default_rng(count), 0
    for seed in range(200):
        hard = rng.normal(size=count)
        runs = {name: hard + rng.normal(0, 0.3, count) for name in "ab"}
        wrong += not Comparison.of(runs, draws=1000, seed=seed).pairs[0].tie
    assert wrong <= 22  # 10 were expected, 52 came of three sequences without Student's factor


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_higher_may_be_better_and_counts_weigh():
    found = Comparison.of({"a": [1.0, 30.0, 3.0], "b": [2.0, 10.0, 1.0]}, [2, 40, 4], better="higher")
    assert [row.name for row in found.rows] == ["a", "b"]
    assert found["a"].mean == pytest.approx(34 / 46)
    assert found.pairs[0].difference == pytest.approx(21 / 46)


def test_totals_of_values_by_sequence():
    first = Ragged.of([[1.0, 2.0], [], [4.0]], np.float64)
    second = Ragged.of([[0.0, 1.0], [], [5.0]], np.float64)
    sums, counts = Comparison.totals([first, second])
    np.testing.assert_array_equal(sums, [[3, 0, 4], [1, 0, 5]])
    np.testing.assert_array_equal(counts, [2, 0, 1])
    assert Comparison.of({"a": sums, "b": sums + 1}, counts)["a"].mean == pytest.approx(6.5 / 3)


def test_a_broken_model_is_last_and_loses_nobody_elses_results():
    broken = HARD.copy()
    broken[3] = np.inf
    found = Comparison.of({"broken": broken, "a": HARD, "b": HARD + 1})
    assert [row.name for row in found.rows] == ["a", "b", "broken"]
    assert found["broken"].mean is None
    assert found["broken"].low is None
    assert not found["broken"].best
    json.dumps(found.to_json(), allow_nan=False)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b")]
    assert any("broken gave some test sequence no finite score" in note for note in found.notes)


def test_one_sequence_makes_every_difference_a_tie():
    found = Comparison.of({"a": [1.0], "b": [2.0]})
    assert found.tied("a", "b")
    assert found.pairs[0].p is None
    assert any("One test sequence" in note for note in found.notes)


def test_identical_models_tie_and_the_table_survives_json():
    found = Comparison.of({"a": HARD, "b": HARD})
    assert found.pairs[0].p == 1
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Comparison.from_json(document) == found


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="same sequences"):
        Comparison.of({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(ConfigError, match="no model to compare"):
        Comparison.of({})
    with pytest.raises(ConfigError, match="one positive number"):
        Comparison.of({"a": [1.0, 2.0]}, [1])
    with pytest.raises(ConfigError, match="'lower' or 'higher'"):
        Comparison.of({"a": [1.0]}, better="best")
    with pytest.raises(ConfigError, match="no model is called 'c'"):
        Comparison.of({"a": HARD, "b": HARD})["c"]
