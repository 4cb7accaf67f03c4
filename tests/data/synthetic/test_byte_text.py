"""Documents of novels: their bytes are the sample's, parts share no passage, names are masked."""

import csv

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data import samples
from seqloom.data.synthetic import _novels
from seqloom.data.synthetic.byte_text import ByteText


def text_of(example) -> str:
    return (example.tokens - _novels.FIRST).astype(np.uint8).tobytes().decode(errors="replace")


def test_documents_are_passages_of_one_novel():
    with samples.path("novels").open(encoding="utf-8", newline="") as file:
        rows = [(row["label"], row["text"]) for row in csv.DictReader(file)]
    for example in ByteText(ByteText.Config(length=700, names=True)).examples("test", 0, 0, 20):
        text = text_of(example)
        own = [passage for label, passage in rows if label == _novels.NOVELS[example.target]]
        assert len(example.tokens) == 700
        first = next(passage for passage in own if text.startswith(passage[:60]))
        assert sum(passage in text for passage in own) >= 1
        assert first in own[261:], "the last tenth of each novel is the test part"


@pytest.mark.parametrize("names", [True, False])
def test_parts_share_no_passage_and_every_part_has_enough(names):
    parts = {part: _novels.passages(part, names) for part in ("train", "valid", "test")}
    assert [len(novel) for novel in parts["train"]] == [232] * 3
    flat = {part: {text for novel in novels for text in novel} for part, novels in parts.items()}
    assert len(set.union(*flat.values())) == sum(map(len, flat.values())) == 870
    for novels in parts.values():
        assert min(sum(map(len, novel)) for novel in novels) > _novels.LONGEST + 480
    heads = [{text[: _novels.HEAD] for text in novel} for novel in _novels._whole(names)]
    assert len(set.union(*heads)) == sum(map(len, heads)), "the head of a passage tells its novel"


def test_names_are_masked_and_words_stay():
    shown = b" ".join(text for novel in _novels.passages("train", False) for text in novel).decode()
    for name in ("Emma", "Elizabeth", "Dashwood", "Bennet", "Highbury"):
        assert name not in shown
    for word in ("She", "happiness", "must", "I"):
        assert f" {word} " in shown


def test_words_tell_the_novel_better_than_chance_and_names_tell_it_almost_surely():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    bayes = pytest.importorskip("sklearn.naive_bayes")
    reached = {}
    for names in (True, False):
        task = ByteText(ByteText.Config(names=names))
        train, test = task.examples("train", 0, 0, 400), task.examples("test", 0, 0, 300)
        count = text.CountVectorizer()
        model = bayes.MultinomialNB().fit(count.fit_transform(map(text_of, train)), train.targets)
        reached[names] = model.score(count.transform(map(text_of, test)), test.targets)
    assert reached[True] > 0.95
    assert task.floor + 0.1 < reached[False] < reached[True]


@pytest.mark.parametrize("length", [59, 4097])
def test_more_than_there_is_is_refused(length):
    with pytest.raises(ConfigError, match="60 to 4096 bytes"):
        ByteText.Config(length=length)


def test_the_longest_documents_can_be_made():
    examples = ByteText(ByteText.Config(length=4096)).examples("test", 0, 0, 20)
    assert {len(example.tokens) for example in examples} == {4096}
