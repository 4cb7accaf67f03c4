import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data.sequences import Sequences
from seqloom.tokenizers._base import Tokenizer
from seqloom.tokenizers.symbols import Symbols

EVENTS = st.lists(st.lists(st.sampled_from(["a", "b c", "ä", "<pad>"]), max_size=5), min_size=1, max_size=6)


@given(EVENTS, EVENTS)
def test_every_event_has_the_vocabulary_s_id(train, test):
    tokenizer = Symbols()
    vocabulary = tokenizer.fit([["a"], *train])
    encoded = tokenizer.encode([["a"], *test])
    assert [ids.tolist() for ids in encoded[1:]] == [[vocabulary.id(event) for event in events] for events in test]
    known = [[event if event in vocabulary else "<unk>" for event in events] for events in test]
    assert [tokenizer.decode(ids) for ids in encoded[1:]] == known
    again = Tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.encode([["a"], *test]) == encoded


def test_order_and_counts_are_those_of_the_events():
    vocabulary = Symbols().fit([["x", "y"], ["y"]])
    assert (vocabulary.symbols, vocabulary.counts) == (("y", "x"), (2, 1))


def test_blocks_with_their_own_dictionaries_agree():
    joined = Sequences.join([Sequences.of([["a", "b"]]), Sequences.of([["b", "c", "b"]])])
    tokenizer = Symbols()
    assert tokenizer.fit(joined).symbols == ("b", "a", "c")
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(joined)] == [["a", "b"], ["b", "c", "b"]]


def test_symbols_that_only_other_parts_hold_are_not_learnt():
    train = Sequences.of([["a"], ["b"]]).select([0])
    assert Symbols().fit(train).symbols == ("a",)


def test_text_is_split_at_white_space():
    tokenizer = Symbols()
    tokenizer.fit(["to be  or\tnot to be", ""])
    assert tokenizer.decode(tokenizer.encode([" not\tto  be"])[0]) == ["not", "to", "be"]
    assert tokenizer.render(tokenizer.encode(["not to"])[0]) == "not to"
    assert tokenizer.encode(["", "to"]).lengths.tolist() == [0, 1]


def test_rare_symbols_are_unknown():
    tokenizer = Symbols(Symbols.Config(minimum=2))
    tokenizer.fit([["a", "a", "b"]])
    assert tokenizer.encode([["b", "a"]])[0].tolist() == [3, 6]


def test_values_have_no_symbols():
    with pytest.raises(ConfigError, match="real values need no tokenizer"):
        Symbols().fit([[0.5, 1.0]])
