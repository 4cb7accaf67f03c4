"""Pairs of documents: what a label means, and that a pair shares nothing."""

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic import _novels
from seqloom.data.synthetic.retrieval import Retrieval


def test_a_pair_is_of_one_novel_or_of_two_and_shares_no_passage():
    task = Retrieval()
    pools = [[text.decode() for text in novel] for novel in _novels.passages("train", False)]
    for example in task.examples("train", 0, 0, 60):
        assert np.flatnonzero(example.tokens == SPECIALS.sep).tolist() == [512]
        raw = (example.tokens - _novels.FIRST).astype(np.uint8)
        halves = [raw[:512].tobytes().decode(errors="replace"), raw[513:].tobytes().decode(errors="replace")]
        found = [[{text for text in pool if text[:55] in half} for pool in pools] for half in halves]
        novels = [max(range(3), key=lambda k, sets=sets: len(sets[k])) for sets in found]
        assert example.target == (novels[0] == novels[1])
        assert not found[0][novels[0]] & found[1][novels[1]]


def test_first_novels_and_labels_are_independent():
    from scipy.stats import chi2_contingency

    task = Retrieval(Retrieval.Config(length=60))
    table = np.zeros((3, 2))
    for example in task.examples("train", 0, 0, 2000):
        table[_novels.novel_of(example.tokens, False), example.target] += 1
    assert chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("length", [59, 2049])
def test_more_than_there_is_is_refused(length):
    with pytest.raises(ConfigError, match="60 to 2048 bytes"):
        Retrieval.Config(length=length)


def test_the_longest_pairs_can_be_made():
    examples = Retrieval(Retrieval.Config(length=2048)).examples("test", 0, 0, 30)
    assert {len(example.tokens) for example in examples} == {2 * 2048 + 1}
