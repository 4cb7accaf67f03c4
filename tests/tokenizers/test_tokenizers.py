"""What holds for every tokenizer on the shelf, and the choice among them."""

import pytest

from seqloom import tokenizers
from seqloom.core.errors import ConfigError
from seqloom.data.sequences import Sequences
from seqloom.tokenizers import default_tokenizer
from seqloom.tokenizers._base import Tokenizer


@pytest.mark.parametrize(
    ("items", "name"),
    [
        (["ACGTACGTACGTA"], "characters"),
        (["MKTAYIAKQRQISFVKSHFSRQ"], "characters"),
        (["some plain text"], "characters"),
        (["".join(map(chr, range(0x4E00, 0x4E00 + 600)))], "bytes"),
        ([["a", "b"]], "symbols"),
    ],
)
def test_default_follows_the_alphabet(items, name):
    assert default_tokenizer(Sequences.of(items)) == name


def test_values_need_none():
    with pytest.raises(ConfigError, match="no tokenizer"):
        default_tokenizer(Sequences.of([[0.5]]))


@pytest.mark.parametrize("name", tokenizers.names())
def test_nothing_is_encoded_before_it_is_learnt(name):
    tokenizer = tokenizers.get(name)()
    with pytest.raises(ConfigError, match="call fit first"):
        tokenizer.encode(["abc"])


@pytest.mark.parametrize("name", tokenizers.names())
def test_saved_forms_of_another_world_are_refused(name):
    tokenizer = tokenizers.get(name)()
    tokenizer.fit(["abcabc abc"])
    document = tokenizer.to_json()
    with pytest.raises(ConfigError, match="format"):
        Tokenizer.from_json({**document, "format": 99})
    with pytest.raises(ConfigError, match="lacks vocabulary"):
        Tokenizer.from_json({key: value for key, value in document.items() if key != "vocabulary"})
    with pytest.raises(ConfigError, match="not known here"):
        Tokenizer.from_json({**document, "config": {"format": 1, "part": "os/system"}})


@pytest.mark.parametrize("name", ["bytes", "characters", "kmer"])
def test_text_tokenizers_refuse_events_and_say_what_to_use(name):
    with pytest.raises(ConfigError, match="use the tokenizer symbols"):
        tokenizers.get(name)().fit([["a", "b"]])
