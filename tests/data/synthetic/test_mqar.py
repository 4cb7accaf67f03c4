"""Multi-query associative recall: the reference's documented example, its power law, and what is refused."""

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data.synthetic.mqar import FIRST, MQAR


def test_the_form_is_that_of_the_references_documented_example():
    """V 12, D 2, N 16 without noise: ``2 8 4 7 0 0 4 0 ..`` asks 7 at the 4 and 8 at the 2."""
    task = MQAR(MQAR.Config(vocab=12, pairs=2, length=16, noise=False))
    for example in task.examples("train", 0, 0, 50):
        symbols, asked = example.tokens - FIRST, example.labels["weight"] == 1
        keys, values = symbols[0:4:2], symbols[1:4:2]
        assert len(symbols) == 16
        assert set(keys) <= set(range(1, 6))
        assert set(values) <= set(range(6, 12))
        assert len(set(keys)) == len(set(values)) == 2
        at = np.flatnonzero(asked)
        assert (at >= 4).all()
        assert (at % 2 == 0).all()
        assert sorted(symbols[at]) == sorted(keys)
        assert (np.delete(symbols, [0, 1, 2, 3, *at]) == 0).all()
        bound = dict(zip(keys, values, strict=True))
        assert (example.labels["answer"][asked] - FIRST).tolist() == [bound[key] for key in symbols[at]]
        assert (example.labels["answer"][~asked] == 0).all()


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_a_single_query_follows_the_power_law(power):
    from scipy.stats import chisquare

    task = MQAR(MQAR.Config(vocab=8, pairs=1, length=12, power=power))
    drawn = [np.flatnonzero(example.labels["weight"])[0] for example in task.examples("train", 0, 0, 4000)]
    slots = np.bincount((np.array(drawn) - 2) // 2, minlength=5)
    law = power * np.arange(1.0, 6.0) ** (power - 1)
    assert chisquare(slots, law / law.sum() * slots.sum()).pvalue > 1e-3


def test_noise_is_even_over_all_symbols():
    from scipy.stats import chisquare

    task = MQAR(MQAR.Config(vocab=16, pairs=1, length=40))
    noise = np.concatenate([example.tokens[3::2] for example in task.examples("train", 0, 0, 300)]) - FIRST
    assert chisquare(np.bincount(noise, minlength=16)).pvalue > 1e-3


def test_the_test_part_may_be_longer_and_hold_more_pairs():
    task = MQAR(MQAR.Config(length=16, pairs=2, test_length=64, test_pairs=4))
    (train,), (test,) = task.examples("train", 0, 0, 1), task.examples("test", 0, 0, 1)
    assert [len(e.tokens) for e in (train, test)] == [16, 64]
    assert [e.labels["weight"].sum() for e in (train, test)] == [2, 4]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pairs": 17}, "17 pairs and their queries"),
        ({"length": 63}, "an even length"),
        ({"vocab": 16}, "an even vocabulary of 18, not 16"),
        ({"power": 0.0}, "above 0"),
        ({"test_pairs": 20}, "20 pairs"),
    ],
)
def test_what_does_not_fit_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        MQAR.Config(**options)
