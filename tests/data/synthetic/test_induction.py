"""Induction: one mark, its symbol, the mark again."""

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic.induction import FIRST, Induction


def test_the_mark_stands_twice_and_its_symbol_is_asked():
    task = Induction()
    for example in task.examples("train", 0, 0, 200):
        at = np.flatnonzero(example.tokens == SPECIALS.sep)
        assert len(example.tokens) == 31
        assert len(at) == 2
        assert at[1] == 29
        assert at[0] <= 27
        assert example.tokens[30] == example.tokens[at[0] + 1] >= FIRST
        assert np.flatnonzero(example.labels["weight"]).tolist() == [30]
    assert task.sizes.vocabulary == FIRST + 19


def test_places_and_symbols_are_even():
    from scipy.stats import chisquare

    task = Induction(Induction.Config(vocab=6, length=12))
    tokens = np.array([example.tokens for example in task.examples("train", 0, 0, 3000)])
    assert chisquare(np.bincount((tokens == SPECIALS.sep).argmax(1), minlength=10)).pvalue > 1e-3
    assert chisquare(np.bincount(tokens[:, -1] - FIRST, minlength=5)).pvalue > 1e-3


def test_the_test_part_may_be_longer():
    task = Induction(Induction.Config(vocab=16, length=256, test_length=4096))
    assert [len(task.examples(part, 0, 0, 1)[0].tokens) for part in ("valid", "test")] == [257, 4097]


@pytest.mark.parametrize("options", [{"vocab": 2}, {"length": 2}, {"test_length": 1}])
def test_what_has_no_room_is_refused(options):
    with pytest.raises(ConfigError, match="3 symbols and 3 columns"):
        Induction.Config(**options)
