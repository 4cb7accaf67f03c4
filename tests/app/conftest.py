"""A small log, a small text and models of them, shared by the tests of the front door."""

import pytest

from seqloom.app.fit import fit
from seqloom.data.sequences import Sequences

CYCLE = [list("abcd" * 3)[k % 4 :][: 5 + k % 4] for k in range(48)]


@pytest.fixture(scope="session")
def cycles() -> Sequences:
    """The symbols a b c d in a circle, from different beginnings: easy to learn, impossible for a unigram."""
    return Sequences.of(CYCLE, ids=[f"s{k}" for k in range(len(CYCLE))])


@pytest.fixture(scope="session")
def network(cycles):
    return fit(cycles, "gru", budget="60steps")


@pytest.fixture(scope="session")
def counted(cycles):
    return fit(cycles, "ngram")
