import json

from hypothesis import given
from hypothesis import strategies as st

from seqloom.data.sequences import Sequences
from seqloom.tokenizers._base import Tokenizer
from seqloom.tokenizers.bytes import Bytes

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(TEXT, min_size=1, max_size=5))
def test_any_text_comes_back_whatever_was_learnt(train, test):
    tokenizer = Bytes()
    tokenizer.fit(train)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(test)] == test
    again = Tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.encode(test) == tokenizer.encode(test)


def test_ids_are_ordered_by_count_and_all_bytes_have_one():
    tokenizer = Bytes()
    vocabulary = tokenizer.fit(["bba", "b"])
    assert vocabulary.size == 262
    assert tokenizer.encode(["ab"])[0].tolist() == [7, 6]
    assert vocabulary.symbol(6) == "b"
    assert vocabulary.counts[2:] == (0,) * 254
    assert "0x0A" in vocabulary


def test_what_is_broken_or_special_is_shown_or_left_out():
    tokenizer = Bytes()
    tokenizer.fit(["aé"])
    ids = tokenizer.encode(["aé"])[0].tolist()
    assert tokenizer.decode([1, *ids, 2, 0]) == "aé"
    assert tokenizer.decode(ids[:-1]) == "a\ufffd"
    assert tokenizer.decode([ids[0], 3, ids[0]]) == "a\ufffda"


def test_a_selected_part_of_a_table_is_read_at_its_place():
    sequences = Sequences.of(["ab", "cde", "f"]).select([1, 2])
    tokenizer = Bytes()
    assert sum(tokenizer.fit(sequences).counts) == 4
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(sequences)] == ["cde", "f"]
