from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest

import seqloom
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.ppm import PPM
from seqloom.testing.classical import language

BOS, EOS, UNK = 1, 2, 3


def brute_force(data, order, vocabulary):
    """The coder's own way: a set of excluded symbols is carried down from context to context."""
    symbols = [EOS, UNK, *range(6, vocabulary)]
    after = defaultdict(Counter)
    for row in data:
        line = [BOS, *row.tolist(), EOS]
        for at in range(1, len(line)):
            for n in range(min(order, at) + 1):
                after[tuple(line[at - n : at])][line[at]] += 1

    def p(prefix, w):
        line, excluded, mass = [BOS, *prefix], set(), Fraction(1)
        for n in range(min(order, len(line)), -1, -1):
            seen = after.get(tuple(line[len(line) - n :]))
            if not seen:
                continue
            escapes = len(seen) if len(seen) < len(symbols) else 0
            total = sum(count for v, count in seen.items() if v not in excluded) + escapes
            if w in seen:
                return mass * Fraction(seen[w], total)
            mass *= Fraction(escapes, total)
            excluded |= set(seen)
        return mass / (len(symbols) - len(excluded))

    return lambda prefix: [float(p(prefix, w)) for w in symbols]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_equals_brute_force(order):
    rng = np.random.default_rng(3)
    skewed = Ragged.of([6 + np.minimum(rng.geometric(0.35, rng.integers(0, 15)), 12) for _ in range(60)])
    for data, vocabulary in ((language(), 11), (skewed, 24), (Ragged.of([[6, 3, 6, 3], [3]]), 7)):
        model = PPM(Sizes(vocabulary=vocabulary), PPM.Config(order=order))
        model.fit(data)
        wanted = brute_force(data, order, vocabulary)
        drawn = [rng.integers(6, vocabulary, rng.integers(1, 9)).tolist() for _ in range(30)]
        for prefix in [[], [vocabulary - 1], [6, 3], *drawn]:
            got = model.distribution(prefix)[[EOS, UNK, *range(6, vocabulary)]]
            np.testing.assert_allclose(got, wanted(prefix), rtol=1e-12)


def test_the_worked_example_of_cleary_and_teahan():
    """Table 1 of 1997: after abracadabra c has 1/2, d 1/2 1/6, and a new one 1/2 3/6 5/12 in equal shares."""
    letters = [6 + "abcdr".index(letter) for letter in "abracadabra"]
    model = PPM(Sizes(vocabulary=12), PPM.Config(order=2))
    model.fit(Ragged.of([letters]), closes=[False])
    p_V = model.distribution(letters)
    new = 1 / 2 * 3 / 6 * 5 / 12 / 3  # the end, <unk>, and the sixth letter
    np.testing.assert_allclose(p_V[[8, 9, 11, EOS, UNK]], [1 / 2, 1 / 2 / 6, new, new, new], rtol=1e-14)


def test_where_every_symbol_was_seen_nothing_escapes():
    model = PPM(Sizes(vocabulary=7), PPM.Config(order=1))
    model.fit(Ragged.of([[6, 3, 6, 6]]))
    np.testing.assert_allclose(model.distribution([6])[[EOS, UNK, 6]], [1 / 3] * 3, rtol=1e-14)
    np.testing.assert_allclose(model.distribution([3])[[EOS, UNK, 6]], [1 / 4, 1 / 4, 1 / 2], rtol=1e-14)


def test_validation_chooses_the_order():
    model = PPM(Sizes(vocabulary=11))
    model.fit(language(0, 200), language(1, 50))
    assert model.order == 2


def test_an_event_log_through_the_front_door(tmp_path):
    fitted = seqloom.fit("sample:flights", "ppm")
    fitted.save(tmp_path / "model")
    again = seqloom.load(tmp_path / "model")
    assert again.score("sample:flights").equals(fitted.score("sample:flights"))
    assert again.predict([["JFK-LAX", "nowhere"]]).equals(fitted.predict([["JFK-LAX", "nowhere"]]))
    assert again.generate(2).equals(fitted.generate(2))


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="order must be at least 1"):
        PPM(Sizes(vocabulary=9), PPM.Config(order=0))
    model = PPM(Sizes(vocabulary=11), PPM.Config(order=2))
    model.fit(language())
    arrays = {**model.arrays(), "count": model.arrays()["count"].copy()}
    arrays["count"][1:12] = 1  # less than some of their contexts have seen
    with pytest.raises(CheckpointError, match="give no probabilities"):
        PPM(Sizes(vocabulary=11), PPM.Config(order=2)).load(arrays)
