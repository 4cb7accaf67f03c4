"""Ten steps of Baum and Welch on a million symbols against hmmlearn's, and against the bare products.

The goal is a tenth of hmmlearn's time. The floor: a symbol needs three products of a vector with a K x K matrix
(forwards, backwards, the arcs' shares), 3 K^2 = 768 multiply-adds for 16 states, 7.7 G for the ten steps, about 1 s
at the 8 G a second that one core reaches in float64 with vectors of four; the arm "products" does these by matrix
products of 10,000 rows, which hold no recursion, no table of symbols, no scaling. The gap to them is the chain: a
step's product waits for the one before, and each symbol costs a division and a look-up besides; what two states need
(60 ns a symbol and step) is nearly all such waiting, of the 145 ns that sixteen need.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import numpy as np

from seqloom.core.protocols import Silent
from seqloom.data.ragged import Ragged
from seqloom.kernels.lattice import lattice_counts
from seqloom.models.classical._baum_welch import Sequences
from seqloom.models.classical._stream import Stream
from seqloom.models.classical.hmm import HMM
from seqloom.testing.benchmark import Case
from seqloom.testing.classical import check_classical
from seqloom.testing.kernels import check_kernel

STATES, SYMBOLS, ROWS, LENGTH, STEPS = 16, 30, 10_000, 100, 10


def cases() -> Iterator[Case]:
    symbols_BT = np.random.default_rng(0).integers(0, SYMBOLS, (ROWS, LENGTH))
    stream = Stream(Ragged.of(list(6 + symbols_BT)), SYMBOLS + 6)
    unigram_V = np.append(np.zeros(6), np.full(SYMBOLS, 1 / SYMBOLS))
    sequences = Sequences(stream, unigram_V, 1.0)
    drawn = sequences.draw(STATES, np.random.default_rng(1))

    def train():
        return sequences.climb(drawn, STEPS, -np.inf, Silent())

    def products():
        a_BK, w_KK = np.ones((ROWS, STATES)), np.full((STATES, STATES), 1 / STATES)
        for _ in range(STEPS * LENGTH):
            a_BK @ w_KK, a_BK @ w_KK.T, a_BK.T @ a_BK

    arms = {"hmm": train, "products": products}
    yield Case("10 steps, 1M symbols, 16 states", arms, "products", check, rounds=5)
    if find_spec("hmmlearn") is not None:
        arms = {"hmm": train, "hmmlearn": lambda: peer(symbols_BT)}
        yield Case("10 steps, 1M symbols, 16 states, hmmlearn", arms, "hmmlearn", check, goal=0.1, rounds=3)


def peer(symbols_BT: np.ndarray) -> object:
    from hmmlearn.hmm import CategoricalHMM

    model = CategoricalHMM(STATES, n_iter=STEPS, tol=-np.inf, random_state=0)
    return model.fit(symbols_BT.reshape(-1, 1), [LENGTH] * ROWS)


@cache
def check() -> None:
    check_kernel(lattice_counts)
    check_classical(HMM.Config())
