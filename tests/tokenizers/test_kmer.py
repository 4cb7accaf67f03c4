import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.data.sequences import Sequences
from seqloom.tokenizers import kmer
from seqloom.tokenizers._base import Tokenizer
from seqloom.tokenizers.kmer import Kmer

DNA = st.lists(st.text("ACGTN", max_size=20), min_size=1, max_size=5)
SHAPES = st.integers(1, 6).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k)))


def words(text, k, stride):
    found, start = [], 0
    while text and (start == 0 or start - stride + k < len(text)):
        found.append(text[start : start + k])
        start += stride
    return found


def mirrored(word):
    return word.translate(str.maketrans("ACGT", "TGCA"))[::-1]


@given(DNA, SHAPES)
def test_windows_are_those_of_a_plain_loop_and_decode_is_their_inverse(texts, shape):
    k, stride = shape
    tokenizer = Kmer(Kmer.Config(k=k, stride=stride))
    vocabulary = tokenizer.fit(texts)
    encoded = tokenizer.encode(texts)
    assert [[vocabulary.symbol(i) for i in ids] for ids in encoded] == [words(text, k, stride) for text in texts]
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert sum(vocabulary.counts) == encoded.total
    again = Tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.encode(texts) == encoded


@given(DNA, DNA)
def test_unseen_words_are_unknown(train, test):
    tokenizer = Kmer(Kmer.Config(k=3))
    vocabulary = tokenizer.fit(train)
    for text, ids in zip(test, tokenizer.encode(test), strict=True):
        assert ids.tolist() == [vocabulary.id(word) for word in words(text, 3, 1)]


@given(DNA, st.sampled_from([1, 4]))
def test_canonical_words_are_the_lesser_strand(texts, stride):
    tokenizer = Kmer(Kmer.Config(k=4, stride=stride, canonical=True))
    vocabulary = tokenizer.fit(texts)
    want = [[min(word, mirrored(word)) for word in words(text, 4, stride)] for text in texts]
    assert [[vocabulary.symbol(i) for i in ids] for ids in tokenizer.encode(texts)] == want


def test_both_strands_read_alike():
    tokenizer = Kmer(Kmer.Config(k=3, canonical=True))
    tokenizer.fit(["AACCC"])
    forward, backward = tokenizer.encode(["AACCC", mirrored("AACCC")])
    assert forward.tolist() == backward[::-1].tolist()
    assert 3 not in forward


def test_both_strands_of_rna_read_alike_and_as_dna():
    tokenizer = Kmer(Kmer.Config(k=3, canonical=True))
    tokenizer.fit(["AAUGC", "UUUU"])
    rna, dna, backward = tokenizer.encode(["AAUGC", "AATGC", "GCAUU"])
    assert rna.tolist() == dna.tolist() == backward[::-1].tolist()
    assert 3 not in [*rna, *tokenizer.encode(["UUUU"])[0]]
    plain = Kmer(Kmer.Config(k=3))
    plain.fit(["AAUGC"])
    assert 3 in plain.encode(["AATGC"])[0]


def test_letters_and_words_that_were_never_seen():
    tokenizer = Kmer(Kmer.Config(k=2, stride=2))
    tokenizer.fit(["ACAC"])
    assert tokenizer.encode(["ACXXé"])[0].tolist() == [6, 3, 3]
    assert tokenizer.decode([6, 3, 6]) == "AC\ufffd\ufffdAC"
    empty = Kmer()
    empty.fit([""])
    assert empty.encode(["ACGTACG"])[0].tolist() == [3, 3]


def test_blocks_change_nothing(monkeypatch):
    sequences = Sequences.of(["ACGTTGCAACGT", "", "TTé", "ACGTACG"])
    whole = Kmer(Kmer.Config(k=3, stride=2))
    whole.fit(sequences)
    want = whole.encode(sequences)
    monkeypatch.setattr(kmer, "_BLOCK", 2)
    blocks = Kmer(Kmer.Config(k=3, stride=2))
    assert blocks.fit(sequences) == whole.vocabulary
    assert blocks.encode(sequences) == want


def test_windows_that_lose_characters_or_overflow_are_refused():
    with pytest.raises(ConfigError, match="between 1 and k = 3"):
        Kmer.Config(k=3, stride=4)
    with pytest.raises(ConfigError, match="lower k"):
        Kmer(Kmer.Config(k=31)).fit(["ACGTN" * 10])
