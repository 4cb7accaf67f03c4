import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.core.specials import NAMES
from seqloom.data.vocabulary import Vocabulary


def test_order_is_by_count_then_symbol_behind_the_specials():
    vocabulary = Vocabulary.count("banana" + "c")
    assert vocabulary.symbols == ("a", "n", "b", "c")
    assert vocabulary.counts == (3, 2, 1, 1)
    assert vocabulary.id("a") == 6
    assert vocabulary.size == len(vocabulary) == 10
    assert [vocabulary.symbol(i) for i in range(6)] == list(NAMES)


@given(st.lists(st.text(max_size=3)))
def test_ids_and_symbols_are_inverse_and_survive_json(symbols):
    vocabulary = Vocabulary.count(symbols)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert [again.symbol(i) for i in again.ids(symbols)] == symbols


def test_unseen_and_rare_symbols_are_unknown():
    vocabulary = Vocabulary.count("aab", minimum=2)
    assert vocabulary.ids("abz").tolist() == [6, 3, 3]
    assert "a" in vocabulary
    assert "b" not in vocabulary


def test_a_symbol_called_like_a_special_is_an_ordinary_one():
    vocabulary = Vocabulary.count(["<pad>"])
    assert vocabulary.id("<pad>") == 6


def test_what_would_give_two_ids_is_refused():
    with pytest.raises(ConfigError, match="'a' stands twice"):
        Vocabulary(symbols=("a", "a"), counts=(1, 1))
    with pytest.raises(ConfigError, match="each needs one"):
        Vocabulary(symbols=("a",), counts=())
    with pytest.raises(ConfigError, match="no id 7"):
        Vocabulary.count("a").symbol(7)
