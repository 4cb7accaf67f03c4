import numpy as np
import polars as pl
import pytest

from seqloom.core.errors import DataError
from seqloom.data.reading import read
from seqloom.data.sequences import Sequences
from seqloom.data.target import LABEL, Target

BEGIN = np.datetime64("2026-01-01T00:00:00", "us")


def frame(rows, **columns):
    """Rows of (case, seconds)."""
    case, seconds = zip(*rows, strict=True)
    time = pl.Series([(BEGIN + np.timedelta64(int(s), "s")).item() for s in seconds])
    return read(pl.DataFrame({"case": case, "activity": ["x"] * len(case), "time": time, **columns}))


@pytest.mark.parametrize(
    ("second", "unit", "told"),
    [(1, "seconds", 10), (60, "minutes", 10), (3600, "hours", 10), (40_000, "days", 125 / 27)],
)
def test_the_unit_goes_by_the_size(second, unit, told):
    log = frame([("a", 0), ("a", 4 * second), ("a", 10 * second), ("b", 7), ("b", 7 + 10 * second)])
    target = Target.fit(log, "remaining")
    assert target.unit == unit
    assert target.of(log)[0].tolist() == pytest.approx([told, 0.6 * told, 0], rel=1e-5)


def test_events_in_any_order_and_at_one_time_are_told_what_remains():
    log = frame([("a", 50), ("b", 5), ("a", 0), ("a", 20), ("a", 20), ("a", 50)])
    told = Target.fit(log, "remaining").of(log)
    by_id = dict(zip(log.ids, told, strict=True))
    assert by_id["a"].tolist() == [50, 30, 30, 0, 0]
    assert by_id["b"].tolist() == [0]


def test_times_that_are_numbers_have_no_unit_of_a_clock():
    log = Sequences.of([["a", "b"], ["c"]], times=[[1.5, 4.0], [2.0]])
    target = Target.fit(log, "remaining")
    assert target.unit == "units of the time column"
    assert target.of(log).flat.tolist() == [2.5, 0, 0]


def test_a_missing_time_leaves_a_gap_and_hides_no_other():
    log = Sequences.of([["a", "b", "c"]], times=[[BEGIN, np.datetime64("NaT", "us"), BEGIN + np.timedelta64(9, "s")]])
    told = Target.fit(log, "remaining").of(log).flat
    assert told[[0, 2]].tolist() == [9, 0]
    assert np.isnan(told[1])


def test_a_column_is_told_by_its_last_number():
    log = frame([("a", 0), ("a", 1), ("a", 2), ("b", 0)], cost=[1.0, 5.0, None, 7.0])
    target = Target.fit(log, "cost")
    assert target.unit == "cost"
    assert target.of(log).flat.tolist() == [5, 5, 5, 7]


def test_a_column_without_a_number_names_the_row():
    with pytest.raises(DataError, match=r"row 2: the sequence 'b' that begins here has no number in 'cost'"):
        Target.fit(frame([("a", 0), ("b", 0), ("b", 1)], cost=[1.0, None, float("nan")]), "cost")


def test_a_number_without_measure_names_the_row():
    with pytest.raises(DataError, match=r"row 2: 'cost' of the sequence 'b' that begins here is too large \(found -1e"):
        Target.fit(frame([("a", 0), ("b", 0)], cost=[1.0, -1e200]), "cost")


def test_text_in_a_column_names_the_row_and_what_was_found():
    log = frame([("a", 0), ("a", 1), ("b", 0)], cost=["1.5", "n/a", "3"])
    with pytest.raises(DataError, match=r"row 1: 'cost' holds no number in event 2 of .* 'a' .*found 'n/a'"):
        Target.fit(log, "cost")


def test_numbers_that_are_written_as_text_are_numbers():
    log = frame([("a", 0), ("a", 1), ("b", 0)], cost=["1.5", " ", "3"])
    assert Target.fit(log, "cost").of(log).flat.tolist() == [1.5, 1.5, 3]


def test_what_is_no_column_of_numbers_is_named_with_those_that_are():
    log = frame([("a", 0), ("b", 0)], cost=[1.0, 2.0], who=["x", "y"])
    with pytest.raises(DataError, match=r"'price' to predict.*What can be predicted: remaining, cost"):
        Target.fit(log, "price")
    with pytest.raises(DataError, match=r"no time of every event.*--time.*--target"):
        Target.fit(Sequences.of([["a"]]), "remaining")


def test_labels_are_numbers_or_the_row_is_named():
    log = Sequences.of(["ab", "c"], labels=["1.5", "-2"])
    target = Target.fit(log, LABEL, column="activity")
    assert (target.unit, target.of(log).flat.tolist()) == ("activity", [1.5, 1.5, -2])
    with pytest.raises(DataError, match=r"row 2: the label is no number \(found 'low'\)"):
        Target.fit(Sequences.of(["ab", "c"], labels=["1.5", "low"]), LABEL)
    with pytest.raises(DataError, match=r"no number to predict.*--target"):
        Target.fit(Sequences.of(["ab"]), LABEL)


@pytest.mark.parametrize("skewed", [False, True])
def test_scaled_numbers_have_mean_0_and_deviation_1_and_come_back(skewed):
    rng = np.random.default_rng(0)
    y = rng.exponential(5, 400) ** 2 if skewed else rng.normal(3, 2, 400)
    log = frame([(str(k), 0) for k in range(400)], cost=y)
    target = Target.fit(log, "cost")
    told = target.of(log).flat
    assert bool(target.bend) == skewed
    z = target.scaled(told)
    assert (z.mean(), z.std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    np.testing.assert_allclose(target.own(z), told, rtol=1e-9)
    assert Target.from_json(target.to_json()) == target


def test_what_lies_below_a_training_part_without_negative_numbers_is_told_too():
    y = np.array([0.0, 1, 1, 2, 2, 3, 50])
    target = Target.fit(frame([(str(k), 0) for k in range(7)], cost=y), "cost")
    assert target.bend
    later = np.array([-500.0, -target.bend, -1e-6, 0, 1e-6, 7])
    scaled = target.scaled(later)
    assert (np.diff(scaled) > 0).all()
    np.testing.assert_allclose(target.own(scaled), later, rtol=1e-9, atol=1e-12)


def test_a_constant_is_told_exactly_and_no_time_lies_below_zero():
    log = frame([("a", 0), ("b", 0)], cost=[4.0, 4.0])
    target = Target.fit(log, "cost")
    assert target.own(target.scaled(np.array([4.0]))).tolist() == [4.0]
    times = Target.fit(frame([("a", 0), ("a", 9), ("b", 0), ("b", 7)]), "remaining")
    assert times.own(np.array([-50.0])).tolist() == [0.0]
