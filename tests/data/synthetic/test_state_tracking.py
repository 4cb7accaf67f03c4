"""Products against sympy's permutations, values against Python's own arithmetic, the floor against every word."""

from itertools import product

import numpy as np
import pytest
from sympy.combinatorics import Permutation
from sympy.combinatorics.named_groups import AlternatingGroup, SymmetricGroup

from seqloom.core.errors import ConfigError
from seqloom.data.synthetic.state_tracking import FIRST, StateTracking, _zero, group

SIGNS = "01234+-*"


@pytest.mark.parametrize(
    ("name", "known"), [("s3", SymmetricGroup(3)), ("a5", AlternatingGroup(5)), ("s5", SymmetricGroup(5))]
)
def test_products_are_those_of_sympy(name, known):
    elements = [Permutation(list(element)) for element in group(name)]
    assert set(elements) == set(known.elements)
    task = StateTracking(StateTracking.Config(machine=name, length=8, test_length=12))
    for example in task.examples("test", 0, 0, 30):
        state, states = Permutation(list(range(int(name[1])))), []
        for symbol in example.tokens - FIRST:
            state = state * elements[symbol]  # sympy multiplies from left to right: first the state, then x_t
            states.append(elements.index(state))
        assert (example.labels["answer"] - FIRST).tolist() == states


def test_values_are_those_of_python():
    task = StateTracking(StateTracking.Config(machine="mod5", length=10, test_length=30))
    for example in task.examples("test", 0, 0, 50):
        text = "".join(SIGNS[symbol] for symbol in example.tokens - FIRST)
        assert np.flatnonzero(example.labels["weight"]).tolist() == list(range(0, len(text), 2))
        want = [eval(text[: t + 1]) % 5 for t in range(0, len(text), 2)]
        assert (example.labels["answer"][0::2] - FIRST).tolist() == want


def test_the_chance_of_zero_is_that_over_all_expressions():
    for count in (1, 2, 3):
        texts = [
            "".join(map("".join, zip(digits, [*signs, ""], strict=True)))
            for digits in product("01234", repeat=count)
            for signs in product("+-*", repeat=count - 1)
        ]
        values = np.array([eval(text) % 5 for text in texts])
        assert _zero(count)[-1] == pytest.approx((values == 0).mean())
        assert np.bincount(values).argmax() == 0


def test_the_floor_of_arithmetic_is_above_one_in_five():
    task = StateTracking(StateTracking.Config(machine="mod5", length=10, test_length=12))
    pooled = [_zero(n).sum() for n in (11, 12)]
    assert task.floor == pytest.approx(sum(pooled) / 23)
    assert 0.2 < task.floor < 0.3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"length": 0}, "beyond its training length"),
        ({"length": 30, "test_length": 30}, "beyond its training length 30, not at 30"),
        ({"length": 2, "test_length": 8}, "6 symbols make too few words of 3"),
    ],
)
def test_what_cannot_be_divided_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        StateTracking.Config(**options)
