from seqloom.core.specials import NAMES, SPECIALS, Specials, ordered


def test_ids_are_those_that_every_saved_vocabulary_relies_on() -> None:
    ids = (SPECIALS.pad, SPECIALS.bos, SPECIALS.eos, SPECIALS.unk, SPECIALS.mask, SPECIALS.sep)
    assert ids == (0, 1, 2, 3, 4, 5)
    assert NAMES == ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<sep>")
    assert SPECIALS.count == 6
    assert Specials() == SPECIALS


def test_a_model_predicts_the_end_and_the_unknown_but_no_other_special() -> None:
    assert set(range(SPECIALS.count)) - set(SPECIALS.unpredictable) == {SPECIALS.eos, SPECIALS.unk}


def test_symbols_are_ordered_by_count_then_by_themselves() -> None:
    assert ordered([("b", 2), ("c", 5), ("a", 2), ("B", 2)]) == ("c", "B", "a", "b")
    assert ordered([]) == ()
