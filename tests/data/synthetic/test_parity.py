"""Parity against Python's own counting of bits."""

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data.synthetic.parity import ZERO, Parity


def test_answers_are_the_parity_of_every_prefix():
    for example in Parity().examples("train", 0, 0, 100):
        text = "".join(map(str, example.tokens - ZERO))
        want = [int(text[: t + 1], 2).bit_count() % 2 for t in range(len(text))]
        assert (example.labels["answer"] - ZERO).tolist() == want
        assert example.labels["weight"].all()


def test_test_examples_are_longer_than_training_ones():
    task = Parity(Parity.Config(length=15, test_length=30))
    train, test = ([len(e.tokens) for e in task.examples(part, 0, 0, 800)] for part in ("train", "test"))
    assert (min(train), max(train)) == (1, 15)
    assert (min(test), max(test)) == (16, 30)
    same = Parity(Parity.Config(length=20, test_length=0))
    assert {len(e.tokens) for e in same.examples("test", 0, 0, 20)} == {20}


def test_scaled_accuracy_is_0_for_a_coin_and_1_for_the_oracle():
    assert Parity().scaled(0.5) == 0.0
    assert Parity().scaled(1.0) == 1.0
    assert Parity().scaled(0.75) == pytest.approx(0.5)


def test_parts_share_no_word_of_any_length():
    task = Parity(Parity.Config(length=10, test_length=0, test=50))
    parts = [{e.tokens.tobytes() for e in task.examples(part, 0, 0, 500)} for part in ("train", "valid", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert np.mean([e.labels["answer"].mean() - ZERO for e in task.examples("train", 0, 0, 500)]) == pytest.approx(
        0.5, abs=0.1
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"length": 0}, "beyond its training length"),
        ({"test_length": 40}, "beyond its training length 40, not at 40"),
        ({"length": 8, "test_length": 20}, "2 symbols make too few words of 9"),
    ],
)
def test_what_cannot_be_divided_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        Parity.Config(**options)
