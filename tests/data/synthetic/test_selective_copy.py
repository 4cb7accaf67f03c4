from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data import synthetic
from seqloom.data.synthetic.selective_copy import BLANK, FIRST, SelectiveCopy

CONFIGS = st.builds(SelectiveCopy.Config, vocab=st.integers(2, 9), keep=st.integers(1, 5), length=st.integers(5, 12))


def answers(example):
    return example.tokens[example.labels["weight"] == 1]


@given(CONFIGS, st.integers(0, 5))
def test_the_oracle_is_always_right_from_the_context_alone(config, seed):
    task = config.build()
    for example in task.examples("train", seed, 0, 10):
        assert task.oracle(example).tolist() == answers(example).tolist()
        assert len(answers(example)) == config.keep
        blind = example.tokens.copy()
        blind[example.labels["weight"] == 1] = BLANK
        assert task.oracle(replace(example, tokens=blind)).tolist() == answers(example).tolist()


def test_the_form_is_context_mark_answers():
    task = SelectiveCopy(SelectiveCopy.Config(vocab=3, keep=2, length=5))
    (example,) = task.examples("test", 0, 7, 8)
    context, mark, last = example.tokens[:5], example.tokens[5], example.tokens[6:]
    assert (context == BLANK).sum() == 3
    assert mark == 5
    assert last.tolist() == context[context != BLANK].tolist()
    assert (example.index, example.opens, example.closes) == (7, False, False)
    assert task.examples("test", 0, 0, 1).lengths.tolist() == [7]
    assert task.sizes.vocabulary == FIRST + 3 > example.tokens.max()


def test_examples_depend_on_their_number_not_on_the_range():
    task = SelectiveCopy()
    whole, later = task.examples("train", 1, 0, 6), task.examples("train", 1, 4, 6)
    assert [example.tokens.tolist() for example in whole[4:]] == [example.tokens.tolist() for example in later]
    assert len(SelectiveCopy(SelectiveCopy.Config(valid=3)).examples("valid")) == 3


def test_parts_and_seeds_share_no_example():
    task = SelectiveCopy()
    drawn = [
        {example.tokens.tobytes() for example in task.examples(part, seed, 0, 300)}
        for part, seed in (("train", 0), ("valid", 0), ("test", 0), ("train", 1))
    ]
    assert all(len(part) == 300 for part in drawn)
    assert len(set.union(*drawn)) == 1200


def test_nothing_but_the_context_tells_the_answers():
    """Each answer is even over the symbols, whatever the slot, the answer before it, and the places of the symbols."""
    from scipy.stats import chisquare

    task = SelectiveCopy(SelectiveCopy.Config(vocab=4, keep=2, length=4))
    examples = list(task.examples("train", 0, 0, 4000))
    pairs = np.array([answers(example) for example in examples]) - FIRST
    places = np.array([np.flatnonzero(example.tokens[:4] != BLANK) for example in examples])
    code = pairs[:, 0] * 4 + pairs[:, 1]
    assert chisquare(np.bincount(code, minlength=16)).pvalue > 1e-3
    for place in np.unique(places, axis=0):
        here = (places == place).all(1)
        assert chisquare(np.bincount(code[here], minlength=16)).pvalue > 1e-4
    guess = np.bincount(pairs.ravel()).max() / pairs.size
    assert guess == pytest.approx(task.floor, abs=0.02)


def test_the_task_is_on_the_shelf_and_travels_as_json():
    assert synthetic.get("selective_copy") is SelectiveCopy
    config = SelectiveCopy.Config(keep=3)
    assert SelectiveCopy.Config.from_json(config.to_json()) == config


def test_the_test_part_may_be_longer_up_to_the_published_size():
    task = SelectiveCopy(SelectiveCopy.Config(vocab=16, keep=16, length=256, test_length=4096))
    train, test = (task.examples(part, 0, 0, 1)[0] for part in ("train", "test"))
    assert [len(example.tokens) for example in (train, test)] == [256 + 17, 4096 + 17]
    assert task.oracle(test).tolist() == answers(test).tolist()


def test_what_has_no_room_is_refused():
    with pytest.raises(ConfigError, match="must hold 9 symbols"):
        SelectiveCopy.Config(keep=9, length=8)
    with pytest.raises(ConfigError, match="a context of 3"):
        SelectiveCopy.Config(test_length=3)
    with pytest.raises(ConfigError, match="the parts train, valid and test"):
        SelectiveCopy().examples("dev")
