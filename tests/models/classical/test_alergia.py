import time

import numpy as np
import pytest

import seqloom
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Silent
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical import _merging
from seqloom.models.classical._automaton import edges
from seqloom.models.classical.alergia import Alergia
from seqloom.testing.classical import language

BOS, EOS, UNK = 1, 2, 3
SYMBOLS = [EOS, UNK, 6, 7, 8, 9, 10]


def drawn(seed, events, symbols=6):
    """Sequences whose next symbol depends on the two before it."""
    rng, rows, total = np.random.default_rng(seed), [], 0
    while total < events:
        row = rng.integers(0, symbols, 2).tolist()
        for _ in range(rng.integers(1, 40)):
            row.append((row[-1] + row[-2] + int(rng.random() < 0.2)) % symbols)
        rows.append([6 + x for x in row])
        total += len(row)
    return Ragged.of(rows)


def fit(data, valid=None, vocabulary=12, progress=None, **options):
    model = Alergia(Sizes(vocabulary=vocabulary), Alergia.Config(**options))
    model.fit(data, valid, progress=progress)
    return model


@pytest.mark.parametrize(
    ("eps", "data"),
    [
        (0.005, drawn(1, 20_000)),
        (0.05, drawn(1, 10_000)),
        (0.05, language(0, 200)),
        (0.5, drawn(2, 1000, 3)),
        (1.0, drawn(1, 2000)),
        (1.3, drawn(7, 600, 3)),  # 381 states, of which some are found after others that come later
        (1.5, drawn(1, 400)),
    ],
)
def test_the_automaton_is_that_of_aalpy(eps, data):
    """AALpy keeps the first of two subtrees in the order of the data, ours in that of the symbols: sorted data."""
    aalpy = pytest.importorskip("aalpy")
    rows = sorted([*row.tolist(), EOS] for row in data)
    theirs = aalpy.run_Alergia([[(0, symbol) for symbol in row] for row in rows], "smm", eps=eps)
    ours = fit(data, eps=(eps,), states=10_000).automaton
    assert ours.states == len(theirs.states) > 1
    number = {state.state_id: q for q, state in enumerate(theirs.states)}
    total_S = np.bincount(ours.source, ours.count)
    got = {
        (int(q), int(w)): (int(t), n / total_S[q])
        for q, w, t, n in zip(ours.source, ours.symbol, ours.target, ours.count, strict=True)
    }
    wanted = {
        (number[state.state_id], w): (number[target.state_id], p)
        for state in theirs.states
        for target, w, p in state.transitions.get(0, ())
    }
    assert got.keys() == wanted.keys()
    for key, (target, p) in wanted.items():
        assert got[key][0] == target
        assert got[key][1] == pytest.approx(p, rel=1e-12)


def test_counts_are_kept_and_paths_are_training_paths():
    data = drawn(3, 2000)
    own = fit(data, eps=(1.0,)).automaton
    assert own.count.sum() == len(data.values) + len(data)
    assert own.finals.sum() == len(data)
    way = {(int(q), int(w)): int(t) for q, w, t in zip(own.source, own.symbol, own.target, strict=True)}
    walked = np.zeros(len(own.count), int)
    place = {key: e for e, key in enumerate(way)}
    for row in data:
        state = 0
        for symbol in [*row.tolist(), EOS]:
            walked[place[state, symbol]] += 1
            state = way[state, symbol]
    np.testing.assert_array_equal(walked, own.count)  # a deterministic automaton: folding has only added up


def test_probabilities_and_the_way_back_from_unseen_symbols():
    data = Ragged.of([[6, 7], [6, 7], [6, 8], [9, 6]] * 30)
    model = fit(data, vocabulary=11, eps=(1.9,), strengths=(0.7,), pseudocount=0.2)
    total = {EOS: 120, 6: 120, 7: 60, 8: 30, 9: 30}
    q = np.array([(total.get(w, 0) + 0.2) / (360 + 0.2 * 7) for w in SYMBOLS])
    begin = np.array([{6: 90, 9: 30}.get(w, 0) for w in SYMBOLS])
    after_6 = np.array([{7: 60, 8: 30}.get(w, 0) for w in SYMBOLS])
    np.testing.assert_allclose(model.distribution()[SYMBOLS], (begin + 0.7 * q) / 120.7, rtol=1e-12)
    np.testing.assert_allclose(model.distribution([6])[SYMBOLS], (after_6 + 0.7 * q) / 90.7, rtol=1e-12)
    np.testing.assert_allclose(model.distribution([10])[SYMBOLS], q, rtol=1e-12)  # lost
    np.testing.assert_array_equal(model.distribution([10, 6]), model.distribution([6]))
    np.testing.assert_array_equal(model.distribution([8, 8, 6]), model.distribution([6]))


def test_alternatives_are_told_apart_and_repetitions_are_one_state():
    ab = Ragged.of([[6, 7] * n for n in range(1, 30)] * 10)
    own = fit(ab, eps=(0.05,)).automaton
    assert own.states == 2
    assert {(edge.source, edge.symbol, edge.target) for edge in edges(fit(ab), 2)} == {(0, 6, 1), (1, 7, 0)}


def test_validation_chooses_eps_and_the_strength():
    train, valid = drawn(4, 4000), drawn(5, 1000)
    model = fit(train, valid)
    options = model.config
    best = max(
        (fit(train, eps=(eps,), strengths=(m,)).token_log_probs(valid).values.sum(), -i, -j)
        for i, eps in enumerate(options.eps)
        for j, m in enumerate(options.strengths)
    )
    assert (model.eps, model.strength) == (options.eps[-best[1]], options.strengths[-best[2]])
    assert (fit(train).eps, fit(train).strength) == (options.eps[0], options.strengths[0])


class Told(Silent):
    said = ""

    def note(self, text):
        self.said += text


def test_states_are_bounded_and_a_note_says_so():
    told = Told()
    model = fit(drawn(6, 3000), eps=(1.5,), states=4, progress=told)
    assert model.automaton.states == 4
    assert "reached its 4 states" in told.said
    assert model.automaton.count.sum() == fit(drawn(6, 3000)).automaton.count.sum()


def test_windows_that_continue_begin_anew_and_their_first_symbol_is_not_counted():
    data = Ragged.of([[6, 7], [7, 6]])
    model = Alergia(Sizes(vocabulary=8), Alergia.Config(eps=(1.9,)))
    model.fit(data, opens=[True, False])
    assert sum(edge.count for edge in edges(model)) == 5
    assert {edge.symbol: edge.count for edge in edges(model) if edge.source == 0 and edge.target}.get(7, 0) == 0


def test_a_sequence_of_a_hundred_thousand_symbols_and_a_log_of_as_many_events():
    began = time.perf_counter()
    assert fit(Ragged.of([np.tile([6, 7, 8, 9], 25_000)])).automaton.states >= 1
    fit(drawn(7, 100_000), drawn(8, 1000))
    assert time.perf_counter() - began < 20


def test_work_is_bounded(monkeypatch):
    """Alike up to their very end: every test walks down both sequences."""
    told, data = Told(), Ragged.of([np.full(300, 6)] * 4)
    assert fit(data, eps=(1.0,), progress=told).automaton.states > 100
    assert "without their successors" not in told.said
    monkeypatch.setattr(_merging, "WORK", 100_000)
    fit(data, eps=(1.0,), progress=told)
    assert "without their successors" in told.said


def test_an_event_log_through_the_front_door(tmp_path):
    fitted = seqloom.fit("sample:flights", "alergia")
    fitted.save(tmp_path / "model")
    again = seqloom.load(tmp_path / "model")
    assert again.score("sample:flights").equals(fitted.score("sample:flights"))
    assert again.predict([["JFK-LAX", "nowhere"]]).equals(fitted.predict([["JFK-LAX", "nowhere"]]))
    assert again.generate(2).equals(fitted.generate(2))


def test_what_cannot_work_is_refused():
    for options in ({"eps": ()}, {"eps": (0.0,)}, {"eps": (2.5,)}, {"strengths": ()}, {"states": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            fit(language(), **options)
    model = fit(language())
    good = model.arrays()
    for name, broken in (
        ("target", good["target"] + good["target"].max() + 1),
        ("symbol", good["symbol"][::-1]),
        ("first", good["first"] + 1),
        ("count", -good["count"]),
        ("unigram", good["unigram"][:-1]),
        ("strength", np.array([0.0])),
        ("eps", np.array([3.0])),
    ):
        with pytest.raises(CheckpointError):
            model.load({**good, name: broken})
