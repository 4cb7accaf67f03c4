import heapq
from collections import Counter

import numpy as np
import polars as pl
import pytest

import seqloom
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data import samples
from seqloom.data.ragged import Ragged
from seqloom.models.classical import _process_tree as pt
from seqloom.models.classical._petri import net_of
from seqloom.models.classical._replay import START, Bounds, Replay
from seqloom.models.classical._stream import Stream
from seqloom.models.classical.inductive_miner import InductiveMiner, net, tree
from seqloom.models.classical.unigram import Unigram
from seqloom.testing.classical import language

BOS, EOS, UNK = 1, 2, 3
BOUNDS = Bounds(moves=3, markings=16, states=20_000)


def learnt(rows, vocabulary=12, valid=None, **options):
    model = InductiveMiner(Sizes(vocabulary=vocabulary), InductiveMiner.Config(**options))
    model.fit(Ragged.of(rows), None if valid is None else Ragged.of(valid))
    return model


def random_tree(rng, symbols):
    """A tree with each symbol at one leaf, and tau here and there."""
    if len(symbols) == 1:
        return pt.join(pt.CHOICE, [pt.TAU, pt.leaf(symbols[0])]) if rng.random() < 0.2 else pt.leaf(symbols[0])
    at = int(rng.integers(1, len(symbols)))
    kind = int(rng.choice([pt.SEQUENCE, pt.CHOICE, pt.PARALLEL, pt.LOOP]))
    parts = [random_tree(rng, symbols[:at]), random_tree(rng, symbols[at:])]
    if kind == pt.LOOP and rng.random() < 0.3:
        parts[1] = pt.TAU
        parts[0] = random_tree(rng, symbols)
    return pt.join(kind, parts)


class TokenGame:
    """Every marking of a net, and optimal alignments of prefixes over all of them: slow, and nothing is left out."""

    def __init__(self, net):
        self.net, start = net, frozenset([0])
        self.after, rest = {start: []}, [start]
        while rest:
            marking = rest.pop()
            for t, label in enumerate(net.labels):
                to = net.fire(marking, t)
                if to is not None:
                    self.after[marking].append((label, to))
                    if to not in self.after:
                        self.after[to] = []
                        rest.append(to)
        self.cost = {start: 0}

    def closed(self, price):
        """Cheapest way to each marking: silent transitions for nothing, others for a price (None = not at all)."""
        best, heap = dict(self.cost), [(cost, sorted(marking)) for marking, cost in self.cost.items()]
        heapq.heapify(heap)
        while heap:
            cost, places = heapq.heappop(heap)
            for label, to in self.after[frozenset(places)]:
                more = cost + (0 if label < 0 else price) if label < 0 or price is not None else None
                if more is not None and more < best.get(to, 1000):
                    best[to] = more
                    heapq.heappush(heap, (more, sorted(to)))
        return best

    def read(self, symbol):
        after = {marking: cost + 1 for marking, cost in self.cost.items()}
        for marking, cost in self.closed(1).items():
            for label, to in self.after[marking]:
                if label == symbol:
                    after[to] = min(cost, after.get(to, cost))
        self.cost = after

    def allowed(self):
        least = min(self.cost.values())
        reached = [marking for marking, cost in self.closed(None).items() if cost == least]
        ids = {label for marking in reached for label, _ in self.after[marking] if label >= 0}
        return sorted(ids | ({EOS} if frozenset([1]) in reached else set()))


def walks(seed, trees):
    """Trees with prefixes that mostly fit, and what the token game says of each of their prefixes."""
    rng = np.random.default_rng(seed)
    for _ in range(trees):
        symbols = list(range(6, 6 + rng.integers(2, 7)))
        made = random_tree(rng, symbols)
        for _ in range(4):
            game, replay = TokenGame(net_of(made)), Replay(made, 14, BOUNDS)
            state, costs, moves = START, 0, []
            for _ in range(12):
                choice = replay.allowed(state)
                choice = choice[choice != EOS]
                fits = len(choice) and rng.random() < 0.9
                symbol = int(rng.choice(choice if fits else symbols))
                before = game.allowed() if not any(moves) else None
                yield before, replay.allowed(state).tolist(), costs, min(game.cost.values())
                game.read(symbol)
                code = replay.edge(state, symbol)
                state, costs = code >> 1, costs + (code & 1)
                moves.append(code & 1)


def test_replay_is_the_token_game_of_the_net():
    """While a prefix fits, exactly the transitions of the net are allowed; silent ones are fired for nobody else."""
    seen = 0
    for wanted, got, _, _ in walks(0, 60):
        if wanted is not None:
            assert got == wanted
            seen += 1
    assert seen > 500


def test_alignments_cost_what_the_best_ones_cost():
    """Never less than an optimal alignment over all markings, nothing for what fits, and seldom more."""
    rows = [(ours, best) for _, _, ours, best in walks(1, 80)]
    assert all(ours >= best for ours, best in rows)
    assert all(ours == 0 for ours, best in rows if best == 0)
    best = [ours == best for ours, best in rows if best]
    assert len(best) > 1000
    assert np.mean(best) > 0.85  # a tenth of the symbols is wrong; what fitted by chance is not taken back


def test_a_prefix_without_a_symbol_is_found_again():
    """a, then b c d left out, then e f: three moves of the model explain it better than skipping e and f and g."""
    made = pt.join(pt.SEQUENCE, [pt.leaf(s) for s in range(6, 14)])
    replay = Replay(made, 14, BOUNDS)
    code_L = replay.run(np.array([BOS, 6, 10, 11, 12]), np.zeros(5, bool))
    assert (code_L & 1).tolist() == [0, 0, 1, 1, 1]
    assert replay.allowed(int(code_L[-1]) >> 1).tolist() == [7, 13]  # three moves either way so far
    assert replay.allowed(replay.edge(int(code_L[-1]) >> 1, 13) >> 1).tolist() == [EOS]


def test_probabilities_in_closed_form():
    """On ->( 'a', X( tau, 'b' ), 'c' ) each state has its counts, one pseudo-event, and the share of the unigram."""
    model = learnt([[6, 7, 8]] * 3 + [[6, 8]], vocabulary=9, share=0.1, strength=2.0, pseudocount=0.5)
    assert tree(model, {6: "a", 7: "b", 8: "c"}) == "->( 'a', X( tau, 'b' ), 'c' )"
    q = dict(zip([EOS, UNK, 6, 7, 8], (np.array([4, 0, 4, 3, 4]) + 0.5) / (15 + 2.5), strict=True))
    near = {7: 3 + 2 * q[7] / (q[7] + q[8]), 8: 1 + 2 * q[8] / (q[7] + q[8])}
    wanted = {w: 0.9 * near.get(w, 0) / 6 + 0.1 * q[w] for w in q}
    np.testing.assert_allclose(model.distribution([6])[list(wanted)], list(wanted.values()), rtol=1e-13)
    assert model.distribution([6, 7, 8]).argmax() == EOS


def test_a_flower_is_nearly_the_unigram():
    rng = np.random.default_rng(0)
    rows = [rng.integers(6, 12, rng.integers(1, 12)).tolist() for _ in range(300)]
    model = learnt(rows, share=0.5)
    count_V = model.count_V
    model._hold(pt.flower(range(6, 12)), count_V)
    model._count(Stream(Ragged.of(rows), 12))
    assert len(model.replay.costs) == 2, "a flower has the places before all and before the start, and they are one"
    unigram = Unigram(Sizes(vocabulary=12))
    unigram.fit(Ragged.of(rows))
    seen = [EOS, *range(6, 12)]
    np.testing.assert_allclose(model.distribution([7, 9])[seen], unigram.distribution()[seen], rtol=0.01)


def test_a_process_is_learnt_better_than_its_symbols():
    rng = np.random.default_rng(0)

    def case():
        row = [[7, 8, 9], [8, 7, 9], [8, 9, 7]][rng.integers(3)]
        while rng.random() < 0.4:
            row = [*row, 10, 11, 12]
        return [6, *row, 10, 11]

    train, valid, test = ([case() for _ in range(n)] for n in (300, 100, 400))
    model = learnt(train, 13, valid)
    assert tree(model) == "->( '6', +( '7', ->( '8', '9' ) ), *( ->( '10', '11' ), '12' ) )"
    assert not model.deviations(Ragged.of(test)).values.any()
    truth = (np.log2(3) + 0.971 / 0.6) / np.mean([len(row) + 1 for row in test])  # orders, and whether to go round
    bits = -model.token_log_probs(Ragged.of(test)).values.mean() / np.log(2)
    assert bits == pytest.approx(truth, rel=0.05)


def test_validation_chooses_noise_and_share():
    rng = np.random.default_rng(1)

    def case():
        row = list(range(6, 16))
        if rng.random() < 0.15:
            row.insert(int(rng.integers(0, 10)), int(rng.integers(6, 16)))
        return row

    train, valid = [case() for _ in range(150)], [case() for _ in range(200)]
    model = learnt(train, 16, valid)
    assert model.noise > 0
    assert tree(model) == "->( '6', '7', '8', '9', '10', '11', '12', '13', '14', '15' )"
    assert 0.001 < model.share < 0.3
    assert len(model.replay.costs) == len(model.origin) + 2, "validation data left states behind"
    assert learnt(train, 16, valid, noise=0.0).noise == 0.0
    bits = [
        -one.token_log_probs(Ragged.of(valid)).values.mean()
        for one in (model, learnt(train, 16, valid, noise=0.0), learnt(train, 16, noise=model.noise))
    ]
    assert bits[0] == min(bits)


def test_deviations_count_what_does_not_fit():
    model = learnt([[6, 7, 8, 9]] * 5)
    rows = Ragged.of([[6, 7, 8, 9], [6, 8, 9], [6, 11, 7, 8, 9], []])
    assert [row.tolist() for row in model.deviations(rows)] == [[0, 0, 0, 0], [0, 1, 1], [0, 1, 1, 1, 1], []]


def test_windows_go_on_from_their_first_symbol_and_are_put_together():
    whole = [6, 7, 8, 9, 6, 7, 8, 10]
    windows, opens, closes = [whole[:3], whole[2:6], whole[5:]], [True, False, False], [False, False, True]
    one, cut = InductiveMiner(Sizes(vocabulary=12)), InductiveMiner(Sizes(vocabulary=12))
    one.fit(Ragged.of([whole]))
    cut.fit(Ragged.of(windows), opens=opens, closes=closes)
    assert tree(cut) == tree(one)
    assert cut.distribution([7], opens=False).argmax() == 8


def test_a_full_table_goes_on_by_the_last_symbol():
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(6, 16)).tolist() for _ in range(300)]
    small, whole = learnt(rows, 16, states=40), learnt(rows, 16)
    assert len(small.replay.costs) <= 40 + 10 < len(whole.replay.costs)
    again = InductiveMiner(small.sizes, small.config)
    again.load(small.arrays())
    assert again.token_log_probs(Ragged.of(rows)) == small.token_log_probs(Ragged.of(rows))
    prefix = rows[-1][:6]
    np.testing.assert_array_equal(small.distribution(prefix), small.distribution(prefix[-1:], opens=False))
    assert not np.array_equal(whole.distribution(prefix), whole.distribution(prefix[-1:], opens=False))


def test_a_loop_of_many_steps():
    model = learnt([[6, *([7, 8] * 50_000), 9], [6, 9], [6, 7, 8, 9]])
    assert tree(model) == "->( '6', X( tau, *( ->( '7', '8' ), tau ) ), '9' )"
    assert len(model.replay.costs) < 10
    assert not model.deviations(Ragged.of([[6, *([7, 8] * 50_000), 9]])).values.any()


def test_many_symbols():
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 3001)
    rows = [(6 + rng.choice(3000, 8, p=weights / weights.sum())).tolist() for _ in range(300)]
    model = learnt(rows, 3006, valid=rows[:50], symbols=60)
    assert max(Counter(model.tree.leaves()).values()) == 1
    assert len(list(model.tree.leaves())) == 60
    assert model.distribution(rows[0]).sum() == pytest.approx(1, abs=1e-12)


def test_the_net_of_a_model():
    made = net(learnt([[6, 7, 8], [6, 8, 7]]))
    assert sorted(label for label in made.labels if label >= 0) == [6, 7, 8]
    marking = frozenset([0])
    for label in (6, -1, 8, 7, -1):
        marking = next(m for t in range(len(made.labels)) if made.labels[t] == label and (m := made.fire(marking, t)))
    assert marking == {1}


def test_edited_files_are_refused():
    model = learnt([row.tolist() for row in language()], 11)
    good = model.arrays()
    for name, change in (
        ("tree", lambda a: a[:-1]),
        ("tree", lambda a: np.vstack([a[:1], a])),
        ("chosen", lambda a: a[:1]),
        ("unigram", lambda a: a[:-1]),
        ("origin", lambda a: a + 100),
        ("keys", lambda a: a[::-1]),
        ("keys", lambda a: a + 10_000),
        ("counts", lambda a: -a),
    ):
        again = InductiveMiner(model.sizes, model.config)
        with pytest.raises(CheckpointError, match="not whole"):
            again.load({**good, name: change(good[name])})


def test_what_cannot_work_is_refused():
    for name in ("strength", "pseudocount", "symbols", "moves", "markings", "states"):
        with pytest.raises(ConfigError, match=f"{name} must be above 0"):
            learnt([[6]], **{name: 0})
    with pytest.raises(ConfigError, match="noise must be from 0"):
        learnt([[6]], noise=1.0)
    with pytest.raises(ConfigError, match="share must be above 0"):
        learnt([[6]], share=0.0)


def some_flights(folder, cases):
    """A file with the first cases of the sample, by airport: the whole sample takes half a minute."""
    table = pl.read_csv(samples.path("flights"))
    table = table.filter(pl.col("case").is_in(table["case"].unique(maintain_order=True)[:cases].implode()))
    table.with_columns(pl.col("activity").str.slice(4)).drop("carrier", "delay").write_csv(folder / "flights.csv")
    return folder / "flights.csv"


def test_fit_score_generate_and_load(tmp_path):
    data = some_flights(tmp_path, 50)
    fitted = seqloom.fit(data, "inductive_miner")
    fitted.save(tmp_path / "model")
    again = seqloom.load(tmp_path / "model")
    assert again.score(data).equals(fitted.score(data))
    assert again.predict(data).equals(fitted.predict(data))
    assert again.generate(2).equals(fitted.generate(2))


@pytest.mark.slow
def test_the_whole_sample(tmp_path):
    fitted = seqloom.fit("sample:flights", "inductive_miner", out=tmp_path / "run")
    assert seqloom.load(tmp_path / "run").score("sample:flights").equals(fitted.score("sample:flights"))


@pytest.mark.parametrize("seed", range(3))
def test_without_noise_every_training_trace_fits(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        width = int(rng.integers(2, 8))
        rows = [(6 + rng.integers(0, width, rng.integers(0, 9))).tolist() for _ in range(rng.integers(2, 20))]
        model = learnt(rows, 14)
        assert not model.deviations(Ragged.of(rows)).values.any()
        ends = [model.replay.allowed(int(state)) for state in model.replay.run(*_lines(rows))[_ends(rows)] >> 1]
        assert all(EOS in allowed for allowed in ends)


def _lines(rows):
    tokens = np.concatenate([[BOS, *row] for row in rows])
    return tokens, tokens == BOS


def _ends(rows):
    return np.cumsum([len(row) + 1 for row in rows]) - 1
