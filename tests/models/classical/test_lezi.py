from collections import Counter

import numpy as np
import pytest

import seqloom
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.lezi import LeZi
from seqloom.testing.classical import language

BOS, EOS, UNK = 1, 2, 3
EXAMPLE = [6 + "abcd".index(letter) for letter in "aaababbbbbaabccddcbaaaa"]


def listing(lines):
    """Figure 2 of 2003, line by line: counts of the suffixes of the window, and the longest phrase."""
    counts, dictionary, longest = Counter(), set(), 0
    for line in lines:
        phrase, window = (), ()
        for at, v in enumerate(line):
            phrase += (v,)
            if phrase not in dictionary:
                dictionary.add(phrase)
                longest = max(longest, len(phrase))
                phrase = ()
            window = (*window, v)[-longest:]
            for n in range(1, len(window) + 1):
                counts[window[-n:]] += n > 1 or at > 0  # the first symbol is input alone
    return +counts, longest


def grams(trie):
    """The trie's n-grams as tuples, with their counts."""
    names = [()] * len(trie.symbol)
    for g in range(trie.contexts):
        for c in range(trie.first[g], trie.first[g + 1]):
            names[c] = (*names[g], int(trie.symbol[c]))
    return +Counter({name: int(count) for name, count in zip(names[1:], trie.count[1:], strict=True)})


def blend(counts, longest, escape, vocabulary):
    symbols = [EOS, UNK, *range(6, vocabulary)]

    def p(h, w):
        lower = p(h[1:], w) if h else 1 / len(symbols)
        after = {v: counts[(*h, v)] for v in symbols if counts[(*h, v)]}
        seen = sum(after.values())
        unseen = max(counts[h] - seen, 0) if h else 0
        total = seen + unseen + escape * len(after)
        return lower if not total else (after.get(w, 0) + (unseen + escape * len(after)) * lower) / total

    def distribution(prefix):
        line = (BOS, *prefix)
        h = line[max(len(line) - longest + 1, 0) :]
        return [p(h, w) for w in symbols]

    return distribution


def fit(data, vocabulary=11, valid=None, closes=None, **options):
    model = LeZi(Sizes(vocabulary=vocabulary), LeZi.Config(**options))
    model.fit(data, valid, closes=closes)
    return model


def test_the_worked_example_of_the_paper():
    model = fit(Ragged.of([EXAMPLE]), 10, closes=[False], escape=1e-13)
    assert model.order == 3  # the phrases are a aa b ab bb bba abc c d dc ba aaa
    counts = {"".join("abcd"[x - 6] for x in gram): n for gram, n in grams(model.trie).items() if BOS not in gram}
    ones = {"a": 10, "b": 8, "c": 3, "d": 2}
    twos = {"aa": 5, "ab": 3, "ba": 3, "bb": 4, "bc": 1, "cb": 1, "cc": 1, "cd": 1, "dc": 1, "dd": 1}
    threes = {"aaa": 2, "aab": 1, "abc": 1, "bba": 1, "bcc": 1, "ccd": 1, "cdd": 1, "ddc": 1, "dcb": 1, "cba": 1}
    assert counts == ones | twos | threes | {"baa": 2}  # bbb came while the longest phrase still had two symbols
    got = model.distribution(EXAMPLE)[6]
    assert got == pytest.approx(2 / 5 + 2 / 5 * (5 / 10 + 2 / 10 * 10 / 23), rel=1e-11)


@pytest.mark.parametrize(("order", "escape"), [(10, 1.0), (10, 0.3), (2, 1.0)])
def test_equals_the_published_listing(order, escape):
    rng = np.random.default_rng(4)
    repeated = Ragged.of([np.tile([6, 7, 8], 9), [], *[6 + rng.integers(0, 3, 9) for _ in range(20)]])
    for data in (language(), repeated):
        model = fit(data, order=order, escape=escape)
        counts, longest = listing([[BOS, *row.tolist(), EOS] for row in data])
        if longest <= order:
            assert model.order == longest > 2
            assert grams(model.trie) == counts
        else:
            counts = Counter({gram: n for gram, n in counts.items() if len(gram) <= order})
        wanted = blend(counts, min(longest, order), escape, 11)
        drawn = [rng.integers(6, 11, rng.integers(1, 9)).tolist() for _ in range(30)]
        for prefix in [[], [10], [6, 7, 8, 6, 7, 8], *drawn]:
            np.testing.assert_allclose(
                model.distribution(prefix)[[EOS, UNK, *range(6, 11)]], wanted(prefix), rtol=1e-12
            )


def test_only_when_asked_validation_chooses_the_window():
    data, valid = language(0, 200), language(1, 50)
    assert fit(data, valid=valid).order == fit(data).order > 3
    assert 3 <= fit(data, valid=valid, choose=True).order < fit(data).order  # two symbols tell the next one


def test_an_event_log_through_the_front_door(tmp_path):
    fitted = seqloom.fit("sample:flights", "lezi")
    fitted.save(tmp_path / "model")
    again = seqloom.load(tmp_path / "model")
    assert again.score("sample:flights").equals(fitted.score("sample:flights"))
    assert again.predict([["JFK-LAX", "nowhere"]]).equals(fitted.predict([["JFK-LAX", "nowhere"]]))
    assert again.generate(2).equals(fitted.generate(2))


def test_what_cannot_work_is_refused():
    for options in ({"order": 0}, {"escape": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            LeZi(Sizes(vocabulary=9), LeZi.Config(**options))
    model = fit(language())
    arrays = {**model.arrays(), "symbol": model.arrays()["symbol"][:-1]}
    with pytest.raises(CheckpointError, match="do not fit together"):
        LeZi(Sizes(vocabulary=11)).load(arrays)
