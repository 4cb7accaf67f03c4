"""ListOps against its recursive definition, as Python's own expressions."""

import statistics

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.data.synthetic.listops import FIRST, SYMBOLS, ListOps

SMALL = ListOps.Config(depth=5, arguments=4, shortest=3, longest=40)
NAMES = {
    "[MIN": "min",
    "[MAX": "max",
    "[MED": "med",
    "[SM": "sm",
}


def value_of(words: list[str]) -> int:
    text = "".join(f"{NAMES[word]}([" if word in NAMES else "])," if word == "]" else f"{word}," for word in words)
    known = {"min": min, "max": max, "med": lambda v: int(statistics.median(v)), "sm": lambda v: sum(v) % 10}
    return eval(text, {"__builtins__": {}}, known)[0]


@pytest.mark.parametrize("config", [SMALL, ListOps.Config()])
def test_values_are_those_of_the_recursive_definition(config):
    for example in ListOps(config).examples("train", 0, 0, 100):
        words = [SYMBOLS[token] for token in example.tokens - FIRST]
        assert example.target == value_of(words)
        assert config.shortest < len(words) < config.longest
        assert words[0] in NAMES


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]", 5),
        ("[MED 1 4 ]", 2),
        ("[MED 0 9 8 3 ]", 5),
        ("[SM 9 8 7 ]", 4),
    ],
)
def test_examples_of_the_papers_form(text, value):
    example = ListOps(SMALL).examples("train", 0, 0, 1)[0]
    tokens = FIRST + np.array([SYMBOLS.index(word) for word in text.split()])
    given = type(example)(index=0, tokens=tokens)
    assert ListOps(SMALL).oracle(given).tolist() == [value] == [value_of(text.split())]


def test_trees_are_drawn_as_published():
    """Of depth 2, nothing is nested and every length is as likely; of depth 3, a node is an operator one time in 4."""
    from scipy.stats import binomtest, chisquare

    flat = ListOps(ListOps.Config(depth=2, arguments=5, shortest=3, longest=8))
    lengths = [len(example.tokens) for example in flat.examples("train", 0, 0, 2000)]
    assert chisquare(np.bincount(lengths)[4:]).pvalue > 1e-3
    deep = ListOps(ListOps.Config(depth=3, arguments=2, shortest=3, longest=60))
    inner = nodes = 0
    for example in deep.examples("train", 0, 0, 2000):
        words = [SYMBOLS[token] for token in example.tokens - FIRST]
        nodes, inner = nodes + 2, inner + sum(word in NAMES for word in words) - 1
    # depth 3 and two arguments: two nodes below the root, each an operator over two digits or a digit
    assert binomtest(inner, nodes, 0.25).pvalue > 1e-3


def test_depth_is_never_exceeded():
    for example in ListOps(SMALL).examples("train", 0, 0, 300):
        words = [SYMBOLS[token] for token in example.tokens - FIRST]
        level = np.cumsum([1 if word in NAMES else -1 if word == "]" else 0 for word in words])
        assert level.max() < SMALL.depth
        assert level[-1] == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"depth": 1}, "at least 2"),
        ({"shortest": 100, "longest": 101}, "100 to 101"),
        ({"depth": 2, "arguments": 5}, "give at most 7 symbols"),
    ],
)
def test_lists_that_cannot_be_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        ListOps.Config(**options)
