"""N-gram training and scoring against sorting the places of the text once by their n-gram, numpy's way.

The goal for training is 2 M symbols/s, which is 1,500 ms for the 3 M characters and 1,000 ms for the 2 M words here.
The text is made up with natural statistics: words of a Zipf law, letters of a Zipf law inside the words. Words drawn
one by one repeat far less than real ones, so that nearly every 5-gram is new: the hard case.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.markov import Markov
from seqloom.models.classical.ngram import Ngram
from seqloom.testing.benchmark import Case
from seqloom.testing.classical import check_classical

WORDS, CHARACTERS, TOKENS = 20_000, 3_000_000, 2_000_000


def cases() -> Iterator[Case]:
    for name, data, vocabulary in (("3M characters", characters(), 33), ("2M words", words(), WORDS + 6)):
        keys = grams(data)
        trained = Ngram(Sizes(vocabulary=vocabulary))
        trained.fit(data)

        def train(kind=Ngram, vocabulary=vocabulary, data=data):
            kind(Sizes(vocabulary=vocabulary)).fit(data)

        def score(model=trained, data=data):
            return model.token_log_probs(data)

        def sort(keys=keys):
            return np.argsort(keys, kind="stable")

        yield Case(f"train order 5, {name}", {"ngram": train, "one sort": sort}, "one sort", check, rounds=5)
        yield Case(
            f"train contexts of 5, {name}",
            {"markov": lambda train=train: train(Markov), "one sort": sort},
            "one sort",
            check,
            rounds=5,
        )
        yield Case(f"score order 5, {name}", {"ngram": score, "one sort": sort}, "one sort", check, rounds=5)


@cache
def check() -> None:
    check_classical(Ngram.Config())
    check_classical(Markov.Config())


def characters() -> Ragged:
    rng = np.random.default_rng(0)
    letters = 1 / np.arange(1, 27)
    lexicon = [7 + rng.choice(26, 2 + rng.poisson(3), p=letters / letters.sum()) for _ in range(WORDS)]
    flat = np.concatenate([np.append(lexicon[i], 6) for i in drawn(rng, CHARACTERS // 4)])[:CHARACTERS]
    return Ragged(flat.astype(np.int32), np.arange(0, CHARACTERS + 1, 100))


def words() -> Ragged:
    return Ragged((6 + drawn(np.random.default_rng(1), TOKENS)).astype(np.int32), np.arange(0, TOKENS + 1, 20))


def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    weights = 1 / np.arange(1, WORDS + 1)
    return rng.choice(WORDS, count, p=weights / weights.sum())


def grams(data: Ragged) -> np.ndarray:
    """Numbers of the 4-grams, 16 bits a symbol: what has to be brought together at the least."""
    flat = data.flat.astype(np.uint64)
    return (flat[:-3] << 48) | (flat[1:-2] << 32) | (flat[2:-1] << 16) | flat[3:]
