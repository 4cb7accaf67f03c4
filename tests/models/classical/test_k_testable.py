from collections import Counter, defaultdict

import numpy as np
import pytest

import seqloom
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._automaton import edges
from seqloom.models.classical.k_testable import KTestable
from seqloom.models.classical.markov import Markov
from seqloom.testing.classical import language

BOS, EOS, UNK = 1, 2, 3
SYMBOLS = [EOS, UNK, 6, 7, 8, 9, 10]


def grammar(data, k):
    """Garcia and Vidal's automaton over tuples: states are beginnings and (k - 1)-grams."""
    after = defaultdict(Counter)
    for row in data:
        line = [BOS, *row.tolist(), EOS]
        for at in range(1, len(line)):
            after[tuple(line[max(at - k + 1, 0) : at])][line[at]] += 1
    return after


def fit(data, order, valid=None, **options):
    model = KTestable(Sizes(vocabulary=11), KTestable.Config(order=order, **options))
    model.fit(data, valid)
    return model


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_equals_the_automaton_over_tuples(k):
    data, rng = language(), np.random.default_rng(3)
    model, after = fit(data, k, strengths=(0.7,), pseudocount=0.2), grammar(data, k)
    total = Counter(w for row in data for w in [*row.tolist(), EOS])
    q = np.array([(total[w] + 0.2) / (total.total() + 0.2 * len(SYMBOLS)) for w in SYMBOLS])
    lost = 0
    for prefix in [[], [10], [10, 6], *[rng.integers(6, 11, rng.integers(1, 9)).tolist() for _ in range(30)]]:
        line = [BOS, *prefix]
        seen = after.get(tuple(line[max(len(line) - k + 1, 0) :]), Counter())
        wanted = (np.array([seen[w] for w in SYMBOLS]) + 0.7 * q) / (seen.total() + 0.7)
        np.testing.assert_allclose(model.distribution(prefix)[SYMBOLS], wanted, rtol=1e-12)
        lost += not seen
    assert k == 1 or lost > 2


def test_its_edges_are_the_k_grams():
    data = language()
    for k in (1, 2, 3):
        after, own = grammar(data, k), fit(data, k).automaton
        assert sorted(own.count) == sorted(n for seen in after.values() for n in seen.values())
        assert own.states == len(after)
        assert own.finals.sum() == len(data)
        way = {(int(q), int(w)): int(t) for q, w, t in zip(own.source, own.symbol, own.target, strict=True)}
        state_of = {}
        for row in data:  # the same gram is always the same state
            state, line = 0, [BOS, *row.tolist(), EOS]
            for at in range(1, len(line)):
                assert state_of.setdefault(tuple(line[max(at - k + 1, 0) : at]), state) == state
                state = way[state, line[at]]
        assert len(set(state_of.values())) == own.states


def test_the_most_used_edges():
    model = fit(Ragged.of([[6, 7], [6, 7], [6, 8]]), 2)
    found = edges(model, 3)
    assert [(edge.symbol, edge.count) for edge in found] == [(6, 3), (7, 2), (EOS, 2)]
    assert found[0].source == 0
    assert found[1].source == found[0].target
    assert found[2].source == found[1].target
    assert len(edges(model)) == 5


def test_an_unseen_context_is_lost_where_markov_shortens_it():
    data = Ragged.of([[6, 7, 8], [9, 7, 8]] * 20)
    ours, theirs = fit(data, 3), Markov(Sizes(vocabulary=11), Markov.Config(order=2, choose=False))
    theirs.fit(data)
    np.testing.assert_allclose(ours.distribution([6, 7]), theirs.distribution([6, 7]), rtol=1e-14)
    np.testing.assert_allclose(ours.distribution([7, 7]), fit(data, 1, strengths=(1e-9,)).distribution(), atol=0.01)
    assert theirs.distribution([7, 7])[8] > 0.9
    assert ours.distribution([7, 7, 8])[EOS] > 0.9  # (7, 8) is a state again


def test_validation_chooses_k_and_the_strength():
    model = fit(language(0, 200), 5, language(1, 50))
    assert model.order == 3  # each symbol is told by the two before it
    scores = [
        fit(language(0, 200), 3, strengths=(m,)).token_log_probs(language(1, 50)).values.sum()
        for m in model.config.strengths
    ]
    assert model.strength == model.config.strengths[int(np.argmax(scores))]
    assert fit(language(), 4).strength == model.config.strengths[0]
    assert fit(language(), 4, language(1, 50), choose=False).order == 4


def test_an_event_log_through_the_front_door(tmp_path):
    fitted = seqloom.fit("sample:flights", "k_testable")
    fitted.save(tmp_path / "model")
    again = seqloom.load(tmp_path / "model")
    assert again.score("sample:flights").equals(fitted.score("sample:flights"))
    assert again.predict([["JFK-LAX", "nowhere"]]).equals(fitted.predict([["JFK-LAX", "nowhere"]]))
    assert again.generate(2).equals(fitted.generate(2))


def test_what_cannot_work_is_refused():
    for options in ({"strengths": ()}, {"strengths": (1.0, 0.0)}, {"pseudocount": 0.0}):
        with pytest.raises(ConfigError, match="must be above 0"):
            fit(language(), 2, **options)
    with pytest.raises(CheckpointError, match="strength"):
        fit(language(), 2).load({**fit(language(), 2).arrays(), "strength": np.array([-1.0])})
