import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged, spans

LISTS = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=8)


@given(LISTS)
def test_holds_what_it_was_made_of(lists):
    ragged = Ragged.of(lists)
    assert [item.tolist() for item in ragged] == lists
    assert ragged.lengths.tolist() == [len(item) for item in lists]
    assert ragged.total == sum(map(len, lists))
    assert ragged.values.dtype == np.int32


@given(LISTS.filter(bool), st.data())
def test_select_copies_in_the_order_asked(lists, data):
    picks = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
    assert [item.tolist() for item in Ragged.of(lists).select(picks)] == [lists[i] for i in picks]


@given(LISTS, LISTS)
def test_join_is_concatenation_also_of_views(a, b):
    joined = Ragged.join([Ragged.of(a)[1:], Ragged.of(b)])
    assert [item.tolist() for item in joined] == a[1:] + b


def test_views_share_memory_and_masks_select():
    ragged = Ragged.of([[1, 2], [3], [4, 5, 6]])
    assert np.shares_memory(ragged[2], ragged.values)
    assert np.shares_memory(ragged[1:].values, ragged.values)
    assert ragged[1:] == Ragged.of([[3], [4, 5, 6]])
    assert ragged[::2] == ragged.select([True, False, True])
    assert ragged[-1].tolist() == [4, 5, 6]
    with pytest.raises(IndexError):
        ragged[3]


def test_values_may_have_channels():
    ragged = Ragged(np.arange(6.0).reshape(3, 2), np.array([0, 1, 3]))
    assert ragged.select([1])[0].tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize("offsets", [[0, 2, 1, 3], [0, 4], [-1, 3], []])
def test_offsets_that_lie_are_refused(offsets):
    with pytest.raises(ConfigError, match="offsets"):
        Ragged(np.zeros(3, np.int32), np.array(offsets, np.int64))


def test_spans_skip_empty_ones():
    assert spans(np.array([5, 0, 2]), np.array([2, 0, 3])).tolist() == [5, 6, 2, 3, 4]
