import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Editops, Levenshtein

from seqloom.core.edits import UNIT, Alignment, Costs, Operation, Span, align, apply, distance, distances, error_rate
from seqloom.core.errors import ConfigError

ORDER = ("keep", "substitute", "delete", "insert")
WORDS = st.lists(st.sampled_from("abc"), max_size=12)
SHORT = st.text("ab", max_size=4)
# multiples of 1/4 add without rounding, so that brute force and the programme see the same ties
PRICES = st.integers(0, 8).map(lambda quarters: quarters / 4)


def scripts(a, b, i=0, j=0):
    """Every script from a to b, as tuples of (kind, source, target)."""
    if i == len(a) and j == len(b):
        yield ()
        return
    if i < len(a) and j < len(b):
        for rest in scripts(a, b, i + 1, j + 1):
            yield (("keep" if a[i] == b[j] else "substitute", i, j), *rest)
    if i < len(a):
        for rest in scripts(a, b, i + 1, j):
            yield (("delete", i, j), *rest)
    if j < len(b):
        for rest in scripts(a, b, i, j + 1):
            yield (("insert", i, j), *rest)


def first_cheapest(a, b, price):
    def key(script):
        return sum(price(*step) for step in script), [ORDER.index(kind) for kind, _, _ in script]

    best = min(scripts(a, b), key=key)
    return key(best)[0], best


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "ab", 2),
        ("kitten", "sitting", 3),
        ("intention", "execution", 5),
        ("ab", "ba", 2),
    ],
)
def test_distance_of_known_pairs(a, b, want):
    got = distance(a, b)
    assert got == want
    assert isinstance(got, int)


@given(WORDS, WORDS)
def test_distance_and_script_agree_with_rapidfuzz(a, b):
    want = Levenshtein.distance(a, b)
    found = align(a, b)
    assert distance(a, b) == found.cost == want
    assert apply(found.operations, a) == b
    changes = [
        ("replace" if op.kind == "substitute" else op.kind, *op[1:3]) for op in found.operations if op.kind != "keep"
    ]
    assert len(changes) == want
    assert Editops(changes, len(a), len(b)).apply("".join(a), "".join(b)) == "".join(b)


@given(WORDS, WORDS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_constant_costs_agree_with_rapidfuzz(a, b, insert, delete, substitute):
    costs = Costs(insert=insert, delete=delete, substitute=substitute)
    want = Levenshtein.distance(a, b, weights=(insert, delete, substitute))
    assert distance(a, b, costs) == align(a, b, costs).cost == want


@settings(max_examples=40)
@given(SHORT, SHORT, PRICES, PRICES, PRICES)
def test_script_is_the_first_cheapest_of_all_scripts(a, b, insert, delete, substitute):
    prices = {"keep": 0.0, "insert": insert, "delete": delete, "substitute": substitute}
    cost, script = first_cheapest(a, b, lambda kind, _i, _j: prices[kind])
    found = align(a, b, Costs(insert=insert, delete=delete, substitute=substitute))
    assert found.cost == cost
    assert tuple(op[:3] for op in found.operations) == script


@settings(max_examples=40)
@given(SHORT, SHORT, st.lists(PRICES, min_size=6, max_size=6))
def test_costs_that_depend_on_the_symbols(a, b, prices):
    came, gone = dict(zip("ab", prices[:2], strict=True)), dict(zip("ab", prices[2:4], strict=True))
    over = {("a", "b"): prices[4], ("b", "a"): prices[5]}

    def price(kind, i, j):
        return {"keep": lambda: 0.0, "insert": lambda: came[b[j]], "delete": lambda: gone[a[i]]}.get(
            kind, lambda: over[a[i], b[j]]
        )()

    costs = Costs(insert=came.__getitem__, delete=gone.__getitem__, substitute=lambda x, y: over[x, y])
    cost, script = first_cheapest(a, b, price)
    found = align(a, b, costs)
    assert distance(a, b, costs) == found.cost == cost
    assert tuple(op[:3] for op in found.operations) == script


def test_one_price_by_symbol_leaves_the_others_constant():
    vowel = Costs(delete=lambda x: 0.25 if x in "aeiou" else 1.0, substitute=5.0)
    assert distance("banana", "bnn", vowel) == align("banana", "bnn", vowel).cost == 0.75
    near = Costs(substitute=lambda x, y: abs(ord(x) - ord(y)) / 10)
    assert distance("ad", "bd", near) == align("ad", "bd", near).cost == pytest.approx(0.1)


@given(WORDS, WORDS, WORDS)
def test_it_is_a_metric(a, b, c):
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_batch_equals_one_by_one(pairs):
    got = distances(pairs)
    assert got.dtype == np.int64
    assert got.tolist() == [distance(a, b) for a, b in pairs]
    assert distances(pairs, Costs(insert=0.5)).dtype == np.float64


def test_any_hashable_symbol_and_any_container():
    words = ["the", ("a", 1), None, 3.5]
    assert distance(words, [*words[:2], "None", 3.5]) == 1
    tensor, array = torch.tensor([5, 6, 7]), np.array([5, 7])
    assert distance(tensor, array) == distance([5, 6, 7], (5, 7)) == 1
    assert apply(align(tensor, array).operations, tensor) == [5, 7]
    assert distance("abc", ["a", "b", "c"]) == 0
    assert distance("naïve \U0001f600", "naive \U0001f601") == 2
    assert align("ab", "b").operations[0] == Operation("delete", 0, 0, None)


def test_ties_follow_the_written_order():
    assert [op.kind for op in align("ab", "ba").operations] == ["substitute", "substitute"]
    assert [op.kind for op in align("aa", "a").operations] == ["keep", "delete"]
    no_swap = Costs(substitute=math.inf)
    assert [op.kind for op in align("a", "b", no_swap).operations] == ["delete", "insert"]


def test_pairs_counts_and_spans():
    source, target = "she go to the big old school now", "she goes to big old school right now"
    found = align(source.split(), target.split())
    assert found.counts == {"keep": 6, "substitute": 1, "delete": 1, "insert": 1}
    assert found.pairs == ((0, 0), (2, 2), (4, 3), (5, 4), (6, 5), (7, 7))
    assert found.spans() == (Span(1, 2, ("goes",)), Span(3, 4, ()), Span(7, 7, ("right",)))
    assert found.spans(gap=1) == (Span(1, 4, ("goes", "to")), Span(7, 7, ("right",)))
    assert Alignment((), 0).spans() == ()


@given(WORDS, WORDS, st.integers(0, 3))
def test_spans_rebuild_the_target(a, b, gap):
    out = list(a)
    for span in reversed(align(a, b).spans(gap=gap)):
        out[span.start : span.end] = span.replacement
    assert out == b


def test_apply_refuses_a_script_of_another_source():
    operations = align("abc", "abd").operations
    for wrong in ("ab", "abcd"):
        with pytest.raises(ConfigError, match="source index"):
            apply(operations, wrong)
    with pytest.raises(ConfigError, match="does not continue at source index 0"):
        apply(operations[1:], "abc")


def test_error_rate_is_over_the_corpus():
    assert error_rate([["the", "cat"], ["sat"]], [["the", "cut", "off"], ["sat"]]) == pytest.approx(2 / 3)
    assert error_rate(["abcd"], ["abd"]) == 0.25
    assert error_rate([""], [""]) == 0.0
    assert error_rate([""], ["x"]) == math.inf


def test_error_rate_refuses_what_it_would_misread():
    with pytest.raises(ConfigError, match="collections"):
        error_rate("abc", "abd")
    with pytest.raises(ConfigError, match="2 references but 1"):
        error_rate(["a", "b"], ["a"])


@pytest.mark.parametrize("bad", [{"insert": -1}, {"delete": math.inf}, {"substitute": math.nan}])
def test_prices_that_define_nothing_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Costs(**bad)
    name, price = next(iter(bad.items()))
    with pytest.raises(ConfigError, match=name):
        distance("a", "b", Costs(**{name: lambda *_: price}))


def test_every_short_pair_over_two_symbols():
    texts = ["".join(t) for n in range(5) for t in itertools.product("ab", repeat=n)]
    pairs = list(itertools.product(texts, repeat=2))
    assert distances(pairs, UNIT).tolist() == [Levenshtein.distance(a, b) for a, b in pairs]
