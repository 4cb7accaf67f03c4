import itertools

import numpy as np
import pytest

import seqloom
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.protocols import Silent
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._baum_welch import Sequences
from seqloom.models.classical._stream import Stream
from seqloom.models.classical.hmm import HMM
from seqloom.models.classical.markov import Markov
from seqloom.testing.classical import language

SIZES = Sizes(vocabulary=11)
EOS, EMITTED = 2, [3, 6, 7, 8, 9, 10]


def rows(rng, *shape):
    count = rng.exponential(size=shape)
    return count / count.sum(-1, keepdims=True)


def loaded(states, *, seed=0, end=True):
    """A model of random weights, without an end on demand."""
    rng = np.random.default_rng(seed)
    enter_2S, move_KS = np.zeros((2, states + 1)), np.zeros((states, states + 1))
    columns = states + 1 if end else states
    enter_2S[:, :columns], move_KS[:, :columns] = rows(rng, 2, columns), rows(rng, states, columns)
    emission_KV = np.zeros((states, 11))
    emission_KV[:, EMITTED] = rows(rng, states, 6)
    model = HMM(SIZES)
    model.load({"enter": enter_2S, "move": move_KS, "emission": emission_KV})
    return model


def likelihood(weights, line, ends=True):
    """Probability of a whole sequence, every path by itself."""
    K = len(weights.move_KS)
    if not line:
        return weights.enter_2S[0, K] if ends else 1.0
    total = 0.0
    for path in itertools.product(range(K), repeat=len(line)):
        p = weights.enter_2S[0, path[0]] * np.prod([weights.move_KS[arc] for arc in itertools.pairwise(path)])
        p *= np.prod([weights.emission_KV[k, w] for k, w in zip(path, line, strict=True)])
        total += p * (weights.move_KS[path[-1], K] if ends else 1.0)
    return total


def test_equals_every_path_one_by_one():
    model = loaded(3)
    for line in ([], [6], [10, 3], [6, 7, 7, 9, 6]):
        before = likelihood(model.weights, line, ends=False)
        wanted_V = np.zeros(11)
        wanted_V[EMITTED] = [likelihood(model.weights, [*line, w], ends=False) / before for w in EMITTED]
        wanted_V[EOS] = likelihood(model.weights, line) / before
        np.testing.assert_allclose(model.distribution(line), wanted_V, rtol=1e-12)
        scores = model.token_log_probs(Ragged.of([line]))[0]
        np.testing.assert_allclose(scores.sum(), np.log(likelihood(model.weights, line)), rtol=1e-12)


@pytest.mark.parity
def test_scores_are_those_of_hmmlearn_where_nothing_ends():
    hmm = pytest.importorskip("hmmlearn.hmm")
    model, rng = loaded(4, end=False), np.random.default_rng(5)
    peer = hmm.CategoricalHMM(4, init_params="")
    peer.n_features = 11
    peer.startprob_, peer.transmat_ = model.weights.enter_2S[0, :4], model.weights.move_KS[:, :4]
    peer.emissionprob_ = model.weights.emission_KV
    for length in (1, 2, 50):
        line = rng.choice(EMITTED, length)
        scores = model.token_log_probs(Ragged.of([line]), closes=[False])[0]
        np.testing.assert_allclose(scores.sum(), peer.score(line[:, None]), rtol=1e-8)
        _, state_TK = peer.score_samples(line[:, None])  # the last posterior is the filtered one
        wanted_V = state_TK[-1] @ peer.transmat_ @ peer.emissionprob_
        np.testing.assert_allclose(model.distribution(line), wanted_V, rtol=1e-8)


@pytest.mark.parity
def test_a_step_is_that_of_hmmlearn_where_nothing_ends():
    hmm = pytest.importorskip("hmmlearn.hmm")
    rng, weights = np.random.default_rng(6), loaded(3, end=False).weights
    lines = [rng.choice(EMITTED, n) for n in (5, 1, 17, 5)]
    peer = hmm.CategoricalHMM(3, init_params="", n_iter=1, tol=-np.inf)
    peer.startprob_, peer.transmat_ = weights.enter_2S[0, :3], weights.move_KS[:, :3]
    peer.emissionprob_ = weights.emission_KV
    peer.fit(np.concatenate(lines)[:, None], [len(line) for line in lines])
    stream = Stream(Ragged.of(lines), 11, closes=[False] * 4)
    sequences = Sequences(stream, np.zeros(11), 0.0)  # no pseudo-events: hmmlearn has none either
    with np.errstate(divide="ignore", invalid="ignore"):
        after = sequences.maximise(sequences.expect(weights))
    np.testing.assert_allclose(after.enter_2S[0, :3], peer.startprob_, rtol=1e-8)
    np.testing.assert_allclose(after.move_KS[:, :3], peer.transmat_, rtol=1e-8)
    np.testing.assert_allclose(after.emission_KV[:, :11], peer.emissionprob_, rtol=1e-8)


def flags(data, windows):
    rng = np.random.default_rng(8)
    return {"opens": rng.random(len(data)) < 0.5, "closes": rng.random(len(data)) < 0.5} if windows else {}


@pytest.mark.parametrize("windows", [False, True])
def test_the_likelihood_never_falls(windows):
    data = language(2, 60)
    stream = Stream(data, 11, **flags(data, windows))
    unigram_V = np.zeros(11)
    unigram_V[EMITTED] = 1 / 6
    for strength in (1e-9, 1.0):
        sequences = Sequences(stream, unigram_V, strength)
        weights, found = sequences.draw(4, np.random.default_rng(0)), []
        for _ in range(40):
            counts = sequences.expect(weights)
            found.append(counts.objective)
            weights = sequences.maximise(counts)
        assert np.diff(found).min() > -1e-9 * abs(found[0])
        assert found[-1] > found[0] + 20


def test_the_objective_is_the_likelihood_of_whole_sequences():
    data, weights = Ragged.of([[], [6], [7, 3, 10], [9, 9]]), loaded(2).weights
    with np.errstate(divide="ignore", invalid="ignore"):
        got = Sequences(Stream(data, 11), np.zeros(11), 0.0).expect(weights).objective
    wanted = sum(np.log(likelihood(weights, row.tolist())) for row in data)
    assert got == pytest.approx(wanted, rel=1e-12)


def test_blocks_do_not_change_the_counts(monkeypatch):
    stream, weights = Stream(language(3), 11), loaded(3).weights
    whole = Sequences(stream, np.full(11, 1 / 11), 1.0)
    monkeypatch.setattr("seqloom.models.classical._baum_welch.CELLS", 20)
    parts = Sequences(stream, np.full(11, 1 / 11), 1.0)
    assert len(whole.blocks) == 1
    assert len(parts.blocks) > 5
    with np.errstate(divide="ignore"):
        pairs = zip(whole.expect(weights)[1:], parts.expect(weights)[1:], strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_finds_the_states_that_made_the_data():
    """Two states that stay: no context of a few symbols tells them apart as well as the whole past does."""
    rng, p_KV = np.random.default_rng(0), np.array([[0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.3, 0.5]])

    def drawn(count):
        lines = []
        for _ in range(count):
            line, state = [], int(rng.random() < 0.5)
            while rng.random() < 0.98:
                line.append(6 + rng.choice(4, p=p_KV[state]))
                state ^= int(rng.random() < 0.03)
            lines.append(line)
        return Ragged.of(lines)

    train, valid, test = drawn(200), drawn(60), drawn(200)
    model, chain = HMM(SIZES, HMM.Config(states=(1, 2))), Markov(SIZES)
    model.fit(train, valid)
    chain.fit(train, valid)
    assert model.states == 2
    first = int(model.weights.emission_KV[0, 6] < 0.3)
    np.testing.assert_allclose(model.weights.emission_KV[[first, 1 - first]][:, 6:10], p_KV, atol=0.03)
    np.testing.assert_allclose(np.diag(model.weights.move_KS[:, :2]), 0.98 * 0.97, atol=0.015)
    np.testing.assert_allclose(model.weights.move_KS[:, 2], 0.02, atol=0.006)
    assert model.token_log_probs(test).flat.mean() > chain.token_log_probs(test).flat.mean() + 0.01


def test_validation_chooses_the_states():
    model = HMM(SIZES, HMM.Config(states=(3, 2)))
    model.fit(language())
    assert model.states == 2  # the last, where nothing can choose
    model = HMM(SIZES, HMM.Config(states=(1, 6)))
    model.fit(language(0, 200), language(1, 50))
    assert model.states == 6  # each symbol is told by the two before it


def test_more_starts_are_no_worse():
    stream = Stream(language(0, 100), 11)
    found = []
    for restarts in (1, 6):
        model = HMM(SIZES, HMM.Config(states=(4,), restarts=restarts, steps=10))
        unigram_V = np.zeros(11)
        unigram_V[EMITTED] = 1 / 6
        sequences = Sequences(stream, unigram_V, 1.0)
        found.append(sequences.expect(model._climb(sequences, 4, Silent())).objective)
    assert found[1] >= found[0]


def test_windows_enter_in_the_middle():
    """a b a b ..: after <bos> comes a; a window that goes on is as likely to go on with either."""
    line = [6, 7] * 20
    model = HMM(Sizes(vocabulary=8), HMM.Config(states=(2,)))
    model.fit(Ragged.of([line, *[line[i : i + 9] for i in range(20)]]), opens=[True] + [False] * 20)
    assert model.distribution()[6] > 0.6
    middle_V = model.distribution(opens=False)
    assert middle_V[6] == pytest.approx(middle_V[7], abs=0.1)
    whole = HMM(Sizes(vocabulary=8), HMM.Config(states=(2,)))
    whole.fit(Ragged.of([line]))  # no window at all: what the states do on average
    assert whole.distribution(opens=False)[6] == pytest.approx(0.5, abs=0.1)


def test_a_special_inside_tells_nothing():
    model = loaded(3)
    after = model.distribution([6, 4])  # <mask>
    move_KK = model.weights.move_KS[:, :3]
    before_S = model._read(model._start(1), np.array([[1, 6]], np.int32), np.array([2]))[0, -1]
    state_K = before_S[:3] / before_S[:3].sum() @ move_KK
    end = before_S[:3] / before_S[:3].sum() @ model.weights.move_KS[:, 3]
    np.testing.assert_allclose(after, state_K @ model.weights.emission_KV + end * (np.arange(11) == EOS), rtol=1e-12)


def test_what_cannot_work_is_refused():
    for name in ("strength", "pseudocount"):
        with pytest.raises(ConfigError, match=f"{name} must be above 0"):
            HMM(SIZES, HMM.Config(**{name: 0.0}))
    for name in ("restarts", "steps"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1"):
            HMM(SIZES, HMM.Config(**{name: 0}))
    for states in ((), (2, 0)):
        with pytest.raises(ConfigError, match="states must be"):
            HMM(SIZES, HMM.Config(states=states))


@pytest.mark.parametrize("break_it", ["shape", "rows", "nan", "special", "closed"])
def test_arrays_that_do_not_fit_are_refused(break_it):
    arrays = {name: array.copy() for name, array in loaded(3).arrays().items()}
    if break_it == "shape":
        arrays["move"] = arrays["move"][:, 1:]
    elif break_it == "rows":
        arrays["enter"] *= 2
    elif break_it == "nan":
        arrays["move"][0, 0] = np.nan
    elif break_it == "special":
        arrays["emission"][:, 0] = arrays["emission"][:, 6]
        arrays["emission"][:, 6] = 0
    else:
        arrays["emission"] = np.roll(arrays["emission"], 1, 1)
    with pytest.raises(CheckpointError, match="save"):
        HMM(SIZES).load(arrays)


def test_predicts_scores_and_generates_after_saving(tmp_path):
    fitted = seqloom.fit("sample:flights", "hmm", out=tmp_path / "run")
    again = seqloom.load(tmp_path / "run")
    row = ["AA", "UA", "AA"]
    assert fitted.score([row]).equals(again.score([row]))
    assert fitted.predict([row]).equals(again.predict([row]))
    written = again.generate(3, prompts=[row], limit=5, seed=1)
    assert written.height == 3
    assert written.equals(fitted.generate(3, prompts=[row], limit=5, seed=1))
