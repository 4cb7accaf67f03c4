import numpy as np
import pytest

from seqloom.app import _engines
from seqloom.app.judge import judge, judged_classes, trivial, units
from seqloom.app.plan import load_data


def test_units_are_sequences_or_pieces_of_few_long_ones():
    many = np.arange(0, 300, 10)
    assert units(many).tolist() == many.tolist()
    few = units(np.array([0, 1000, 1030, 11_030]))
    assert {0, 1000, 1030, 11_030} <= set(few.tolist())
    assert 50 <= np.diff(few).max() <= 111
    assert units(np.array([0])).tolist() == [0]


def test_a_class_that_training_never_saw_is_missed_and_costs_20_bits():
    got = judged_classes(np.array([[0.75, 0.25], [0.5, 0.5]]), ("a", "b"), ["b", "new"])
    assert got.bits_N.tolist() == [2.0, 20.0]
    assert got.accuracy == 0.0


def test_being_right_is_told_by_a_sample_where_writing_all_out_costs_too_much(cycles, counted, monkeypatch):
    data = load_data(cycles).prepared
    whole = judge(counted.engine, data)
    cells = int(whole.counted * data.sizes.vocabulary / 3)
    monkeypatch.setattr(_engines, "LOOKED_AT", cells)
    part = judge(counted.engine, data)
    assert part.bits == whole.bits
    assert 0 < np.isnan(part.hits_N).sum() < len(part.hits_N)
    assert part.accuracy == pytest.approx(whole.accuracy, abs=0.2)


def test_the_trivial_answer_is_the_unigram(cycles):
    data = load_data(cycles).prepared
    counts = np.bincount(data.train.tokens.flat, minlength=data.sizes.vocabulary).astype(float)
    counts[2] = len(data.train)
    p_V = (counts + 0.5) / (counts + 0.5)[[2, 3, 6, 7, 8, 9]].sum()
    test = data.test.tokens
    bits = -np.log2(p_V[test.flat]).sum() - len(test) * np.log2(p_V[2])
    assert trivial(data).bits == pytest.approx(bits / (test.total + len(test)))
