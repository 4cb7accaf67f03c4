from collections import Counter, defaultdict

import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.annotated_transitions import AnnotatedTransitions

SIZES = Sizes(vocabulary=10, targets=1)
LEVELS = [0.1, 0.5, 0.9]
BOS = 1


def log(seed: int, count: int = 60) -> tuple[Ragged, Ragged]:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(6, 10, rng.integers(0, 7)) for _ in range(count)]
    return Ragged.of(rows), Ragged.of([np.round(rng.exponential(5, len(row)), 1) for row in rows], np.float64)


def model(data, **options):
    made = AnnotatedTransitions(SIZES, AnnotatedTransitions.Config(**options))
    made.fit(*data)
    return made


def key(history: list[int], states: str):
    return {"sequence": tuple(history), "bag": frozenset(Counter(history).items()), "set": frozenset(history)}[states]


def by_hand(data, asked, history: int, least: int, states: str) -> np.ndarray:
    """The same with dictionaries, prefix by prefix."""
    seen = [defaultdict(list) for _ in range(history + 1)]
    for tokens, numbers in zip(*data, strict=True):
        if not len(tokens):
            continue
        padded = [BOS] * history + tokens.tolist()
        for t, y in enumerate([numbers[0], *numbers]):
            for k in range(history + 1):
                seen[k][key(padded[history + t - k : history + t], states)].append(y)
    told = []
    for tokens in asked:
        padded = [BOS] * history + tokens.tolist()
        for t in range(1, len(tokens) + 1):
            found = [seen[k][key(padded[history + t - k : history + t], states)] for k in range(history + 1)]
            believed = [values for k, values in enumerate(found) if len(values) >= (least if k else 1)]
            told.append(np.quantile(believed[-1], LEVELS))
    return np.array(told)


@pytest.mark.parametrize("states", ["sequence", "bag", "set"])
@pytest.mark.parametrize(("history", "least"), [(0, 1), (1, 1), (2, 4), (3, 3)])
def test_it_is_what_dictionaries_tell(states, history, least):
    data, (asked, _) = log(0), log(1, 20)
    own = model(data, history=history, least=least, states=states)
    want = by_hand(data, asked, history, least, states)
    np.testing.assert_allclose(own.quantiles(asked, LEVELS), want, rtol=1e-12, atol=1e-12)


def test_a_symbol_never_seen_falls_back_to_shorter_histories():
    own = model(log(0), history=3, least=2)
    everything = model(log(0), history=0)
    np.testing.assert_array_equal(
        own.following(Ragged.of([[3]]), LEVELS), everything.following(Ragged.of([[6]]), LEVELS)
    )
    np.testing.assert_array_equal(  # once the new symbol is far enough back only the last one is known
        own.following(Ragged.of([[3, 6]]), LEVELS),
        model(log(0), history=1, least=2).following(Ragged.of([[8, 6]]), LEVELS),
    )


def test_the_history_is_chosen_on_validation_data():
    rng = np.random.default_rng(3)
    rows = [rng.integers(6, 8, 12) for _ in range(150)]
    first = Ragged.of([np.concatenate([[0, 0], row[:-2]]) == 6 for row in rows], np.float64)  # two symbols ago
    data = Ragged.of(rows), first
    cut = 100
    own = AnnotatedTransitions(SIZES)
    own.fit(data[0][:cut], data[1][:cut], (data[0][cut:], data[1][cut:]))
    assert len(own.history_SK) - 1 == 3
    told = own.quantiles(data[0][cut:], [0.5])[:, 0]
    assert np.array_equal(told, data[1][cut:].flat)
    noise = Ragged(rng.normal(size=first.total), first.offsets)
    own.fit(data[0][:cut], noise[:cut], (data[0][cut:], noise[cut:]))
    assert len(own.history_SK) - 1 <= 1


def test_validation_without_any_number_chooses_nothing():
    ragged, numbers = log(0)
    blank = Ragged(np.full(numbers.total, np.nan), numbers.offsets)
    made = model((ragged, numbers, (ragged, blank)))
    usual = model((ragged, numbers))
    assert np.array_equal(made.quantiles(ragged, LEVELS), usual.quantiles(ragged, LEVELS))


def test_what_was_learnt_is_taken_back():
    own, again = model(log(0), history=2), AnnotatedTransitions(SIZES)
    again.load(own.arrays())
    asked = log(1)[0]
    np.testing.assert_array_equal(again.quantiles(asked, LEVELS), own.quantiles(asked, LEVELS))
    assert again.held_parameters == own.held_parameters
    arrays = own.arrays()
    with pytest.raises(CheckpointError, match="do not fit"):
        again.load({**arrays, "history2": arrays["history2"][1:]})
    with pytest.raises(CheckpointError, match="history1 must be a table of 1 columns"):
        again.load({name: array for name, array in arrays.items() if name != "history1"})


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="needs symbols"):
        AnnotatedTransitions(Sizes(channels=2, targets=1))
    with pytest.raises(ConfigError, match="at least 0"):
        AnnotatedTransitions(SIZES, AnnotatedTransitions.Config(history=-1))
