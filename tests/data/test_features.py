import json

import numpy as np
import polars as pl
import pytest

from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.features import MOST, Features, wanted
from seqloom.data.reading import read
from seqloom.data.sequences import Sequences

preprocessing = pytest.importorskip("sklearn.preprocessing")

LOG = {
    "case": ["a", "a", "a", "b", "b"],
    "event": ["x", "y", "x", "y", "x"],
    "time": [0.0, 3.0, 10.0, 5.0, 5.5],
    "cost": [1.0, None, 4.0, 2.0, 7.0],
    "who": ["ann", "bob", "ann", "cid", "ann"],
}


def log(**changes):
    return read(pl.DataFrame({**LOG, **changes}), columns=Columns(case="case", event="event", time="time"))


def test_values_are_scaled_as_sklearn_does_and_known_is_one():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(5, 3, (n, 2)) for n in (4, 1, 7)]
    train = Sequences.of(arrays)
    features = Features.fit(train)
    got = features.of(train)
    want = preprocessing.StandardScaler().fit_transform(np.concatenate(arrays))
    np.testing.assert_allclose(got.flat[:, :2], want, rtol=1e-6)
    assert (got.flat[:, 2] == 1).all()
    assert got.lengths.tolist() == [4, 1, 7]
    assert (features.predicted, features.width, features.names) == (2, 3, ("value0", "value1"))


def test_a_constant_channel_is_shifted_and_not_scaled():
    features = Features.fit(Sequences.of([np.full(5, 1e9)]))
    assert features.of(Sequences.of([np.array([1e9, 1e9 + 2])])).flat[:, 0].tolist() == [0, 2]


def test_numbers_words_and_gaps_become_columns():
    features = Features.fit(log(), "all")
    assert [(c.name, c.kind, c.width) for c in features.channels] == [
        ("cost", "number", 2),
        ("who", "level", 3),
        ("gap", "gap", 1),
    ]
    rows = features.of(log()).flat
    cost = np.array([1.0, 4.0, 2.0, 7.0])
    np.testing.assert_allclose(rows[[0, 2, 3, 4], 1], (cost - cost.mean()) / cost.std(), rtol=1e-6)
    assert rows[1, 1:3].tolist() == [0, 0]  # missing
    assert rows[[0, 2, 3, 4], 2].tolist() == [1] * 4
    words = np.array(LOG["who"])[:, None]
    np.testing.assert_array_equal(rows[:, 3:6], preprocessing.OneHotEncoder(sparse_output=False).fit_transform(words))
    gap = np.log1p([0.0, 3.0, 7.0, 0.0, 0.5])
    np.testing.assert_allclose(rows[:, 6], (gap - gap.mean()) / gap.std(), rtol=1e-6, atol=1e-7)


def test_scales_are_those_of_the_training_part_and_new_words_are_zeros():
    features = Features.fit(log(), "who,cost")
    new = features.of(log(who=["eve"] * 5, cost=[100.0] * 5)).flat
    assert not new[:, 1:4].any()
    np.testing.assert_allclose(new[:, 4], (100 - 3.5) / np.std([1, 4, 2, 7]), rtol=1e-6)


def test_what_the_data_lack_is_missing_and_told():
    features = Features.fit(log(), "all")
    bare = Sequences.of([["x", "y"], ["x"]])
    assert features.missing(bare) == ("cost", "who", "gap")
    assert features.of(bare).flat[:, 0].tolist() == [1, 1, 1]
    assert not features.of(bare).flat[:, 1:6].any()


def test_a_column_of_other_type_than_in_training_is_read_as_it_was():
    features = Features.fit(log(), "who,cost")
    rows = features.of(log(who=[1, 2, 1, 3, 1], cost=["1", "no", "4", "2", "7"])).flat
    assert not rows[:, 1:4].any()
    assert rows[:, 5].tolist() == [1, 0, 1, 1, 1]
    coded = Features.fit(log(who=[1, 2, 1, 3, 1]), "who")
    assert coded.channels[0].kind == "number"


def test_only_the_most_frequent_words_have_a_column():
    words = [f"w{min(i, 2 * MOST - i)}" for i in range(2 * MOST)]
    many = pl.DataFrame({"case": ["a"] * len(words), "event": ["x"] * len(words), "who": words})
    features = Features.fit(read(many), "who")
    assert features.channels[0].width == MOST
    assert features.channels[0].levels[0] == "w1"


@pytest.mark.parametrize(("inputs", "says"), [("price", "there is no input 'price'"), ("cost,gap2", "'gap2'")])
def test_unknown_inputs_are_refused_with_the_known_ones(inputs, says):
    with pytest.raises(DataError, match=says) as found:
        wanted(log(), inputs)
    assert "cost, who, gap, elapsed" in str(found.value)


def test_another_number_of_channels_is_refused():
    features = Features.fit(Sequences.of([np.zeros((3, 2))]))
    with pytest.raises(DataError, match="3 channels, and the model was trained on 2: value0, value1"):
        features.of(Sequences.of([np.zeros((3, 3))]))


def test_features_survive_json():
    features = Features.fit(log(), "all")
    assert Features.from_json(json.loads(json.dumps(features.to_json()))) == features


def test_words_that_look_like_numbers_in_new_data_are_found_by_their_value():
    features = Features.fit(log(who=["12345678", "007", "none", "007", "12345678"]), "who")
    levels = features.channels[0].levels
    rows = features.of(log(who=[12345678, 7, 7, 8, 12345678])).flat[:, 1:]
    want = ["12345678", "007", "007", None, "12345678"]
    assert [None if not row.any() else levels[int(row.argmax())] for row in rows] == want


def test_an_input_that_is_named_twice_goes_in_once():
    assert wanted(log(), "cost, cost,gap") == ["cost", "gap"]


def test_time_that_has_passed_is_a_number_of_seconds_and_only_where_it_is_named():
    whole = log()
    features = Features.fit(whole, "elapsed")
    assert [(c.name, c.kind, c.width) for c in features.channels] == [("elapsed", "number", 2)]
    passed = np.concatenate([own - own[0] for own in whole.times()])
    rows = features.of(whole).flat
    np.testing.assert_allclose(rows[:, 1], (passed - passed.mean()) / passed.std(), rtol=1e-6, atol=1e-7)
    assert rows[:, 2].all()
    assert "elapsed" not in [channel.name for channel in Features.fit(whole, "all").channels]
    assert features.missing(Sequences.of([["a"]])) == ("elapsed",)
