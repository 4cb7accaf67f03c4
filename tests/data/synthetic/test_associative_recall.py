"""Associative recall: one digit a letter, one question."""

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic.associative_recall import FIRST, AssociativeRecall


def test_a_letter_keeps_its_digit_and_one_that_occurred_is_asked():
    for example in AssociativeRecall().examples("train", 0, 0, 200):
        letters, digits = example.tokens[0:20:2] - FIRST, example.tokens[1:20:2] - FIRST
        assert len(example.tokens) == 23
        assert set(letters) <= set(range(10))
        assert set(digits) <= set(range(10, 20))
        bound = dict(zip(letters, digits, strict=True))
        assert [bound[letter] for letter in letters] == digits.tolist()
        mark, asked, answer = example.tokens[-3:]
        assert mark == SPECIALS.sep
        assert bound[asked - FIRST] == answer - FIRST


def test_every_letter_that_occurred_is_asked_as_often():
    """Where one letter stands three times and another once, both are asked in half of the examples."""
    from scipy.stats import chisquare

    task = AssociativeRecall(AssociativeRecall.Config(vocab=8, length=8))
    rare = []
    for example in task.examples("train", 0, 0, 6000):
        letters, counts = np.unique(example.tokens[0:8:2], return_counts=True)
        if sorted(counts) == [1, 3]:
            rare.append(int(example.tokens[-2] == letters[counts == 1][0]))
    assert len(rare) > 500
    assert chisquare(np.bincount(rare, minlength=2)).pvalue > 1e-3


def test_the_test_part_may_be_longer():
    task = AssociativeRecall(AssociativeRecall.Config(test_length=60))
    assert [len(task.examples(part, 0, 0, 1)[0].tokens) for part in ("valid", "test")] == [23, 63]


@pytest.mark.parametrize("options", [{"vocab": 2}, {"vocab": 7}, {"length": 9}, {"length": 0}, {"test_length": 3}])
def test_halves_that_are_none_are_refused(options):
    with pytest.raises(ConfigError, match="even"):
        AssociativeRecall.Config(**options)
