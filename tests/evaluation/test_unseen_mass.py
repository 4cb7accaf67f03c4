import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.evaluation.unseen_mass import unseen_mass


def test_it_is_how_often_new_symbols_come():
    """A steep Zipf's law over 50,000 symbols: what 100,000 draws leave out has the mass that they alone tell."""
    rng = np.random.default_rng(0)
    p = np.arange(1.0, 50_001.0) ** -1.5
    p /= p.sum()
    counts = np.bincount(rng.choice(len(p), 100_000, p=p), minlength=len(p))
    seen = counts[counts > 0]
    assert unseen_mass(seen) == pytest.approx(p[counts == 0].sum(), rel=0.1)


@pytest.mark.parametrize(("counts", "want"), [([], 0.5), ([1], 1.5 / 3), ([3, 1, 1], 2.5 / 9), ([4, 0], 0.5 / 7)])
def test_the_formula_by_hand(counts, want):
    assert unseen_mass(counts) == want


@given(st.lists(st.integers(0, 1000), max_size=50))
def test_it_is_a_probability_that_leaves_something_to_both(counts):
    assert 0 < unseen_mass(counts) < 1


def test_what_are_no_counts_is_refused():
    with pytest.raises(ConfigError, match="none below 0"):
        unseen_mass([1, -1])
    with pytest.raises(ConfigError, match="one number a symbol"):
        unseen_mass([[1, 2]])
