import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError, DataError
from seqloom.data import _leakage
from seqloom.data.sequences import Sequences
from seqloom.data.splits import leakage, split


def texts(count, **extra):
    return Sequences.of([f"text {i}" for i in range(count)], **extra)


@given(st.integers(3, 60), st.integers(0, 3), st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0)]))
def test_every_sequence_is_in_one_part_of_the_size_asked(count, seed, fractions):
    found = split(texts(count), fractions=fractions, seed=seed)
    parts = [found.train, found.valid, found.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    for part, share in zip(parts, fractions, strict=True):
        assert abs(len(part) - share * count) <= 1.5
        assert bool(len(part)) == (share > 0)
    assert found.how == "random"


def test_random_parts_depend_on_the_seed_alone():
    tests = [split(texts(50), seed=seed).test.tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_the_past_trains_and_the_future_tests():
    rng = np.random.default_rng(0)
    start = rng.permutation(40)
    sequences = Sequences.of([["a", "b"]] * 40, times=[[t, t + 0.5] for t in start])
    found = split(sequences)
    assert found.how == "time"
    assert start[found.train].max() < start[found.valid].min() <= start[found.valid].max() < start[found.test].min()
    assert (len(found.train), len(found.valid), len(found.test)) == (32, 4, 4)
    assert leakage(sequences, found).overlapping == 0


def test_overlapping_times_are_counted_and_told():
    sequences = Sequences.of([["a", "b"]] * 10, times=[[t, t + 3.5] for t in range(10)])
    found = split(sequences)
    report = leakage(sequences, found)
    assert found.test.tolist() == [9]
    assert report.overlapping == 2  # those of 6 and 7 end at 9.5 and 10.5, the test begins at 9
    assert "2 of 8 training sequences still run" in " ".join(report.sentences)


def test_a_training_sequence_that_ends_as_the_test_begins_does_not_overlap():
    sequences = Sequences.of([["a", "b"]] * 10, times=[[t, t + 2] for t in range(10)])
    assert leakage(sequences, split(sequences)).overlapping == 0  # the last of train runs from 7 to 9


def test_what_valid_and_test_share_is_a_duplicate_too():
    sequences = Sequences.of(["ab", "cd", "ef", "gh"], times=[[1], [2], [3], [4]])
    twins = Sequences.of(["ab", "cd", "xy", "xy"], times=[[1], [2], [3], [4]])
    halves = {"how": "time", "fractions": (0.5, 0.25, 0.25)}
    assert leakage(sequences, split(sequences, **halves)).duplicates == {"valid": 0, "test": 0}
    assert leakage(twins, split(twins, **halves)).duplicates == {"valid": 0, "test": 1}


def test_groups_stay_whole():
    groups = [f"g{i % 7}" for i in range(40)]
    sequences = texts(40, groups=groups)
    found = split(sequences, seed=3)
    sets = [{groups[i] for i in part} for part in (found.train, found.valid, found.test)]
    assert found.how == "group"
    assert not sets[0] & sets[1]
    assert not (sets[0] | sets[1]) & sets[2]
    assert leakage(sequences, found).shared_groups == 0
    random = split(sequences, "random")
    report = leakage(sequences, random)
    before = {groups[i] for i in [*random.train, *random.valid]}
    assert report.shared_groups == len({groups[i] for i in random.test} & before) > 0
    assert "--split group" in " ".join(report.sentences)


def test_groups_follow_time_where_there_is_time():
    sequences = Sequences.of([["a"]] * 6, times=[[5], [1], [6], [2], [9], [3]], groups=list("cacabb"))
    found = split(sequences, fractions=(0.34, 0.33, 0.33))
    assert [part.tolist() for part in (found.train, found.valid, found.test)] == [[1, 3], [4, 5], [0, 2]]


@pytest.mark.parametrize("missing", [np.nan, np.datetime64("NaT")])
def test_groups_without_a_time_disturb_no_order(missing):
    rng = np.random.default_rng(1)
    kind = type(missing)
    start = [rng.permutation(24)[i] for i in range(24)]
    when = [
        [] if i % 4 == 0 else [kind(int(t), "s") if kind is np.datetime64 else float(t)] for i, t in enumerate(start)
    ]
    groups = [f"g{i // 2}" if i < 12 else f"h{i}" for i in range(24)]  # a pair has a time where one of both has
    sequences = Sequences.of([["a"] * len(t) for t in when], times=when, groups=groups)
    found = split(sequences)
    first = sequences.start_times
    earliest = [np.fmin.reduce(first[[j for j in range(24) if groups[j] == g]]) for g in groups]
    times = [[t for i in part if not np.isnan(t := earliest[i])] for part in (found.train, found.valid, found.test)]
    assert found.how == "group"
    assert max(times[0]) < min(times[1]) <= max(times[1]) < min(times[2])


def test_what_has_no_group_is_alone_and_shared_by_nobody():
    grouped, others = texts(9, groups=list("aabbccdde")), texts(5)
    sequences = Sequences.join([grouped, others])
    given = split(sequences, test=range(9, 14))
    assert leakage(sequences, given).shared_groups == 0
    found = split(sequences, "group", fractions=(0.5, 0.25, 0.25))
    assert len(found.train) + len(found.valid) + len(found.test) == 14
    assert len({len(part & set(range(9, 14))) for part in map(set, (found.train, found.valid, found.test))}) > 1
    assert leakage(sequences, found).shared_groups == 0


def test_one_long_sequence_is_cut_by_position():
    sequences = Sequences.of(["é" * 5 + "x" * 80 + "y" * 10 + "z" * 5])
    found = split(sequences)
    train, valid, test = found.parts(sequences)
    assert found.how == "position"
    assert "cut by position" in found.notes[0]
    assert train.sequence(0) + valid.sequence(0) + test.sequence(0) == sequences.sequence(0)
    assert test.sequence(0) == "y" * 5 + "z" * 5
    assert [part.opens[0] for part in (train, valid, test)] == [True, False, False]
    assert [part.closes[0] for part in (train, valid, test)] == [False, False, True]
    assert "follow one another" in leakage(sequences, found).sentences[0]


def test_a_time_of_the_whole_stays_with_every_part():
    sequences = Sequences.of(["abcdefghij", "klmnopqrst"], times=[[1.0], [2.0]])
    parts = split(sequences).parts(sequences)
    assert [part.sequence(1) for part in parts] == ["klmnopqr", "s", "t"]
    assert all(part.times().flat.tolist() == [1.0, 2.0] for part in parts)


def test_parts_select_the_sequences():
    sequences = texts(20)
    found = split(sequences)
    for numbers, part in zip((found.train, found.valid, found.test), found.parts(sequences), strict=True):
        assert part.ids == [str(i + 1) for i in numbers]


def test_a_given_part_is_kept_and_the_rest_is_divided():
    found = split(texts(20), test=[3, 5])
    assert (found.how, found.test.tolist()) == ("given", [3, 5])
    assert sorted([*found.train, *found.valid]) == [i for i in range(20) if i not in (3, 5)]
    assert len(found.valid) == 2
    mask = np.arange(20) > 17
    assert split(texts(20), test=mask).test.tolist() == [18, 19]


@pytest.mark.parametrize(
    "items",
    [["abc", "abd", "abc", "x"], [["a", "b"], ["b", "a"], ["a", "b"], ["a"]], [[0.5, 1.0], [1.0], [0.5, 1.0], [2.0]]],
)
def test_duplicates_across_parts_are_found_symbol_for_symbol(items):
    sequences = Sequences.of(items)
    found = split(sequences, fractions=(0.5, 0.0, 0.5), test=[2, 3])
    report = leakage(sequences, found)
    assert report.duplicates["test"] == 1
    assert not report.clean
    assert "1 of 2 test sequences (50.0 %)" in report.sentences[0]
    clean = leakage(sequences, split(sequences, test=[3]))
    assert clean.duplicates["test"] == 0


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), min_size=2, max_size=30))
def test_fingerprints_are_equal_exactly_where_sequences_are(items):
    from seqloom.data._leakage import fingerprints

    hashes = fingerprints(Sequences.of([["a"], *items])).tolist()[1:]
    assert [[a == b for b in items] for a in items] == [[a == b for b in hashes] for a in hashes]


def test_fingerprints_do_not_depend_on_blocks(monkeypatch):
    from seqloom.data import _leakage

    sequences = Sequences.of([["a", "b", "c"], [], ["c"], ["a"] * 9, ["b"]])
    whole = _leakage.fingerprints(sequences).tolist()
    monkeypatch.setattr(_leakage, "_BLOCK", 2)
    assert _leakage.fingerprints(sequences).tolist() == whole


def test_what_cannot_be_split_is_refused():
    for options, word in (
        ({"how": "time"}, "--time"),
        ({"how": "group"}, "--group"),
        ({"how": "given"}, "--test"),
        ({"how": "luck"}, "no split is called"),
        ({"fractions": (0.5, 0.5)}, "add up to 1"),
        ({"fractions": (0.5, 0.6, -0.1)}, "add up to 1"),
        ({"test": [9]}, "names sequence 9"),
        ({"test": [-2, 1]}, "names sequence -2"),
        ({"test": [True, False]}, "mask of the test part has 2"),
        ({"test": [0, 1, 2, 3, 4]}, "leave something"),
    ):
        with pytest.raises(ConfigError, match=word):
            split(texts(5), **options)
    with pytest.raises(DataError, match="no sequence"):
        split(Sequences.of([]))


@given(st.lists(st.integers(0, 20), max_size=12), st.lists(st.integers(0, 20), max_size=12))
def test_known_and_repeated_hashes_are_those_of_numpy(hashes, among):
    hashes, among = np.array(hashes, np.uint64), np.array(among, np.uint64)
    assert _leakage.known(hashes, among).tolist() == np.isin(hashes, among).tolist()
    assert _leakage.repeats(hashes) == len(hashes) - len(np.unique(hashes))


def test_series_that_run_side_by_side_are_cut_and_logs_that_do_are_split_at_random():
    times = [[float(t) for t in range(40)]] * 20
    series = Sequences.of([np.arange(40.0) + k for k in range(20)], times=times)
    cut = split(series)
    assert cut.how == "position"
    assert [len(part) for part in cut.parts(series)] == [20, 20, 20]
    assert split(Sequences.of([["a"] * 40] * 20, times=times)).how == "random"
    labelled = Sequences.of([np.arange(40.0)] * 20, times=times, labels=["x", "y"] * 10)
    assert split(labelled).how == "random", "a class must not stand on both sides"
    short = Sequences.of([np.arange(9.0)] * 20, times=[[float(t) for t in range(9)]] * 20)
    assert split(short).how == "random", "the last tenth of nine steps is no test"
    later = [[float(t + 3 * k) for t in range(40)] for k in range(20)]
    assert split(Sequences.of([np.arange(40.0)] * 20, times=later)).how == "time"
