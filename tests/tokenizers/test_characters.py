import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.data.sequences import Sequences
from seqloom.tokenizers import characters
from seqloom.tokenizers._base import Tokenizer
from seqloom.tokenizers.characters import Characters

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=5)


@given(TEXTS)
def test_text_that_was_seen_comes_back(texts):
    tokenizer = Characters()
    vocabulary = tokenizer.fit(texts)
    encoded = tokenizer.encode(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert encoded.lengths.tolist() == [len(text) for text in texts]
    assert set(vocabulary.symbols) == set("".join(texts))
    again = Tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.encode(texts) == encoded


@given(TEXTS, TEXTS)
def test_every_character_has_the_vocabulary_s_id(train, test):
    tokenizer = Characters()
    vocabulary = tokenizer.fit(train)
    for text, ids in zip(test, tokenizer.encode(test), strict=True):
        assert ids.tolist() == [vocabulary.id(letter) for letter in text]


def test_blocks_end_where_characters_do(monkeypatch):
    text = "aé€😀" * 50
    whole = Characters()
    whole.fit([text])
    want = whole.encode([text, text[1:]])
    monkeypatch.setattr(characters, "_BLOCK", 7)
    blocks = Characters()
    assert blocks.fit([text]) == whole.vocabulary
    assert blocks.encode([text, text[1:]]) == want


def test_rare_characters_are_unknown_and_show():
    tokenizer = Characters(Characters.Config(minimum=2))
    tokenizer.fit(["aab"])
    assert tokenizer.encode(["ab😀"])[0].tolist() == [6, 3, 3]
    assert tokenizer.decode([6, 3, 2]) == "a\ufffd"


def test_joined_and_selected_tables_are_read_at_their_place():
    sequences = Sequences.join([Sequences.of(["xé", "yz"]).select([1]), Sequences.of(["é", ""])])
    tokenizer = Characters()
    assert sorted(tokenizer.fit(sequences).symbols) == ["y", "z", "é"]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(sequences)] == ["yz", "é", ""]


def test_nothing_makes_nothing():
    tokenizer = Characters()
    assert tokenizer.fit([""]).size == 6
    assert len(tokenizer.encode([])) == 0
    assert tokenizer.encode(["new"])[0].tolist() == [3, 3, 3]


@pytest.mark.parametrize("text", ["plain ascii", "mixed é"])
def test_ids_are_int32(text):
    tokenizer = Characters()
    tokenizer.fit([text])
    assert tokenizer.encode([text]).values.dtype == np.int32
