from collections import Counter, defaultdict

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.markov import Markov
from seqloom.testing.classical import language

BOS, EOS, UNK = 1, 2, 3
SYMBOLS = [EOS, UNK, 6, 7, 8, 9, 10]


def brute_force(data, k, strength=1.0, pseudocount=0.5):
    """The published rule over dictionaries: the longest context that was seen, then its frequencies."""
    after = defaultdict(Counter)
    for row in data:
        line = [BOS, *row.tolist(), EOS]
        for at in range(1, len(line)):
            for n in range(min(k, at) + 1):
                after[tuple(line[at - n : at])][line[at]] += 1
    total = sum(after[()].values())
    q = {w: (after[()][w] + pseudocount) / (total + pseudocount * len(SYMBOLS)) for w in SYMBOLS}

    def p(prefix):
        line = [BOS, *prefix]
        h = next(h for n in range(min(k, len(line)), -1, -1) if (h := tuple(line[len(line) - n :])) in after)
        seen = sum(after[h].values())
        return [(after[h][w] + strength * q[w]) / (seen + strength) for w in SYMBOLS]

    return p


@pytest.mark.parametrize("order", [1, 2, 5])
def test_equals_brute_force(order):
    data, rng = language(), np.random.default_rng(3)
    model = Markov(Sizes(vocabulary=11), Markov.Config(order=order, strength=0.7, pseudocount=0.2))
    model.fit(data)
    wanted = brute_force(data, order, 0.7, 0.2)
    for prefix in [[], [10], [10, 6], *[rng.integers(6, 11, rng.integers(1, 9)).tolist() for _ in range(30)]]:
        np.testing.assert_allclose(model.distribution(prefix)[SYMBOLS], wanted(prefix), rtol=1e-12)


def test_a_chain_of_order_one_in_closed_form():
    model = Markov(Sizes(vocabulary=9), Markov.Config(order=1))
    model.fit(Ragged.of([[6, 7, 6, 7], [6, 6]]))
    q = np.array([0, 0, 2.5, 0.5, 0, 0, 4.5, 2.5, 0.5]) / (8 + 0.5 * 5)
    after_6 = np.array([0, 0, 1, 0, 0, 0, 1, 2, 0])
    np.testing.assert_allclose(model.distribution([7, 6]), (after_6 + q) / 5, rtol=1e-14)


def test_validation_chooses_the_order():
    data = language(0, 200)  # each symbol is told by the two before it
    model = Markov(Sizes(vocabulary=11))
    model.fit(data, language(1, 50))
    assert model.order == 2
    model = Markov(Sizes(vocabulary=11), Markov.Config(order=1))
    model.fit(data, language(1, 50))
    assert model.order == 1


def test_what_cannot_work_is_refused():
    for name in ("strength", "pseudocount"):
        with pytest.raises(ConfigError, match=f"{name} must be above 0"):
            Markov(Sizes(vocabulary=9), Markov.Config(**{name: 0.0}))
