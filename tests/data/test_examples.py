import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged

BOS, EOS = -1, -2


def predicted(example):
    """Every (input, target) pair of next-token training, written out."""
    line = [BOS] * example.opens + example.tokens.tolist() + [EOS] * example.closes
    return list(itertools.pairwise(line))


FLAGS = st.tuples(st.booleans(), st.booleans())


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=9), FLAGS), max_size=6), st.integers(1, 5))
def test_windows_predict_every_target_once_within_their_length(rows, length):
    whole = Examples(
        Ragged.of([tokens for tokens, _ in rows]),
        opens=[opens for _, (opens, _) in rows],
        closes=[closes for _, (_, closes) in rows],
    )
    cut = whole.windows(length)
    for number, example in enumerate(whole):
        parts = [cut[i] for i in np.flatnonzero(cut.parent == number)]
        assert [pair for part in parts for pair in predicted(part)] == predicted(example)
    assert all(len(predicted(part)) == n <= length for part, n in zip(cut, cut.lengths, strict=True))
    assert [example.index for example in cut] == list(range(len(cut)))
    assert cut.symbols == whole.symbols


def test_an_empty_sequence_keeps_its_one_window():
    (window,) = Examples(Ragged.of([[]])).windows(4)
    assert (window.opens, window.closes, len(window.tokens)) == (True, True, 0)


def test_values_labels_and_targets_move_with_the_tokens():
    tokens = Ragged.of([[1, 2, 3], [4]])
    values = Ragged(np.arange(8.0).reshape(4, 2), tokens.offsets)
    weight = Ragged(np.array([0.1, 0.2, 0.3, 0.4]), tokens.offsets)
    windows = Examples(tokens, [5, 7], values=values, labels={"weight": weight}).windows(2)
    assert windows[1].tokens.tolist() == [2, 3]
    assert windows[1].values.tolist() == [[2, 3], [4, 5]]
    assert windows[1].labels["weight"].tolist() == [0.2, 0.3]
    assert [window.target for window in windows] == [5, 5, 7]
    assert isinstance(windows[0].target, int)


def test_views_are_not_copies_and_selected_examples_keep_their_numbers():
    tokens = Ragged.of([[1, 2], [3], [4]])
    examples = Examples(tokens)
    assert np.shares_memory(examples[1].tokens, tokens.values)
    assert [example.index for example in examples.select([2, 0])] == [2, 0]
    assert examples[1:][0].index == 1
    with pytest.raises(IndexError):
        examples[3]


def test_values_alone_make_examples():
    (example,) = Examples(None, values=Ragged(np.ones((2, 1)), np.array([0, 2])))
    assert example.tokens.size == 0
    assert example.values.shape == (2, 1)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ConfigError, match="different lengths"):
        Examples(Ragged.of([[1]]), values=Ragged(np.ones((2, 1)), np.array([0, 2])))
    with pytest.raises(ConfigError, match="each needs one"):
        Examples(Ragged.of([[1]]), [1, 2])
    with pytest.raises(ConfigError, match="tokens or values"):
        Examples(None)
    with pytest.raises(ConfigError, match="at least one column"):
        Examples(Ragged.of([[1]])).windows(0)


def test_selecting_nothing_gives_nothing():
    examples = Examples(Ragged.of([[1], [2]]))
    assert len(examples.select([])) == 0
    assert [example.index for example in examples.select(np.array([False, True]))] == [1]


def test_whole_examples_own_their_arrays_and_say_the_same():
    tokens = Ragged.of([[6, 7, 8], [], [9, 6]])
    values = Ragged.of([np.ones((3, 2)), np.zeros((0, 2)), np.full((2, 2), 5.0)], np.float32)
    examples = Examples(tokens, [1, 2, 3], values=values, opens=[True, False, True])
    assert examples.whole() is examples
    for chosen in (examples.select([2, 0, 0]), examples.windows(2), examples.select([])):
        own = chosen.whole()
        assert len(own.tokens) == len(own.values) == len(own) == len(chosen)
        for was, now, tokens_T, values_TC in zip(chosen, own, own.tokens, own.values, strict=True):
            assert was.tokens.tolist() == now.tokens.tolist() == tokens_T.tolist()
            assert was.values.tolist() == now.values.tolist() == values_TC.tolist()
            assert (was.target, was.opens, was.closes) == (now.target, now.opens, now.closes)
