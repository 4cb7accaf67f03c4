from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.mixers.conv import _history
from seqloom.mixers.conv.hyena import Hyena

SMALL = ImplicitFilter.Config(length=40, width=8, frequency=2.0)


def build(width=4, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return Hyena(width, Hyena.Config(**{"filter": SMALL, **options})).to(dtype).eval()


@torch.no_grad()
def by_matrices(mixer, x_BTD):
    """The paper's product of diagonal and Toeplitz matrices, each written out, in float64."""
    options, D, T, n = mixer.config, mixer.width, x_BTD.shape[1], mixer.config.order
    z_BTC = x_BTD @ mixer.into.weight.T + mixer.into.bias
    K, ahead = options.conv, 0 if options.causal else options.conv // 2
    short_BTC = mixer.conv_bias.expand_as(z_BTC).clone()
    for t in range(T):
        for j in range(K):
            s = t - (K - 1) + j + ahead
            if 0 <= s < T:
                short_BTC[:, t] += mixer.conv_weight[:, j] * z_BTC[:, s]
    parts = [short_BTC[..., i * D : (i + 1) * D] for i in range(n + 1)]
    v_BTD = parts[n]
    past_CT, future_CT = mixer.past(T), None if mixer.future is None else mixer.future(T)
    for o in range(n - 1):
        v_BTD = v_BTD * parts[n - 1 - o]
        y_BTD = torch.empty_like(v_BTD)
        for d in range(D):
            M = torch.zeros(T, T, dtype=torch.float64)
            for t in range(T):
                for s in range(T):
                    if s <= t:
                        M[t, s] = past_CT[d * (n - 1) + o, t - s]
                    elif future_CT is not None:
                        M[t, s] = future_CT[d * (n - 1) + o, s - t - 1]
            y_BTD[..., d] = v_BTD[..., d] @ (M + mixer.skip[o, d] * torch.eye(T)).T
        v_BTD = y_BTD
    return (v_BTD * parts[0]) @ mixer.out.weight.T + mixer.out.bias


def feed(mixer, x_BTD, sizes, state=None, capacity=None):
    state, pieces = state or mixer.initial_state(len(x_BTD), capacity=capacity), []
    for x in x_BTD.split(sizes, 1):
        y, state = mixer(x, state)
        pieces.append(y)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize(
    "options", [{}, {"order": 3}, {"order": 4, "conv": 1}, {"causal": False}, {"causal": False, "order": 3, "conv": 5}]
)
@pytest.mark.parametrize("T", [1, 2, 13, 61])  # shorter and longer than the unit of time
def test_equals_the_toeplitz_matrices(options, T):
    mixer, x_BTD = build(**options), torch.randn(2, T, 4).double()
    assert_close(mixer(x_BTD)[0], by_matrices(mixer, x_BTD), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("capacity", [None, 10, 331, 1000])
@pytest.mark.parametrize("sizes", [[1] * 331, [100, *[1] * 131, 60, *[1] * 40], [2, 3] * 60 + [31], [331]])
@torch.no_grad()
def test_any_split_equals_the_whole(order, capacity, sizes):
    """Online steps, chunks that are stepped and chunks that are transformed, lines that grow."""
    mixer, x_BTD = build(order=order), torch.randn(2, 331, 4).double()
    y_BTD, state = feed(mixer, x_BTD, sizes, capacity=capacity)
    assert_close(y_BTD, mixer(x_BTD)[0], rtol=1e-12, atol=1e-12)
    assert state.length_B.tolist() == [331, 331]


@torch.no_grad()
def test_rows_of_different_lengths_step_on():
    mixer, x_BTD = build(order=3), torch.randn(3, 150, 4).double()
    lengths = [50, 7, 31]
    state = mixer.initial_state(3, capacity=150)
    _, state = mixer(x_BTD[:, :50], state, layout=Layout(lengths_B=torch.tensor(lengths)))
    rest_BTD = torch.stack([x_BTD[b, n : n + 100] for b, n in enumerate(lengths)])
    y_BTD, state = feed(mixer, rest_BTD, [1] * 70 + [30], state)
    for b, n in enumerate(lengths):
        assert_close(y_BTD[b], mixer(x_BTD[b : b + 1, : n + 100])[0][0, n:], rtol=1e-12, atol=1e-12)
    assert state.length_B.tolist() == [n + 100 for n in lengths]


@torch.no_grad()
def test_picked_and_forked_rows_step_on():
    mixer, x_BTD = build(), torch.randn(3, 120, 4).double()
    _, state = feed(mixer, x_BTD[:, :45], [1] * 45, capacity=120)
    rows_R = torch.tensor([2, 0, 2])
    picked, fork = state.select(rows_R), state.fork()
    want_BTD = mixer(torch.cat([x_BTD[rows_R, :45], x_BTD[:, 45:]], 1))[0][:, 45:]
    assert_close(feed(mixer, x_BTD[:, 45:], [1] * 75, picked)[0], want_BTD, rtol=1e-12, atol=1e-12)
    feed(mixer, -x_BTD[:, 45:], [1] * 75, state)  # writes into the buffers that the fork no longer shares
    assert_close(feed(mixer, x_BTD[:, 45:], [1] * 75, fork)[0], mixer(x_BTD)[0][:, 45:], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_recorded_points_come_back_and_step_on():
    mixer, x_BTD = build(order=3), torch.randn(2, 90, 4).double()
    _, state = feed(mixer, x_BTD[:, :40], [1] * 40, capacity=90)
    _, state = mixer(x_BTD[:, 40:50], state, layout=Layout(states_at=(0, 3, 7)))
    state = state.rollback(torch.tensor([3, 10]))
    rest_BTD = torch.stack([x_BTD[0, 47:87], x_BTD[1, 40:80]])
    y_BTD, _ = feed(mixer, rest_BTD, [1] * 40, state)
    want_BTD = mixer(x_BTD)[0]
    assert_close(y_BTD[0], want_BTD[0, 47:87], rtol=1e-12, atol=1e-12)
    assert_close(y_BTD[1], want_BTD[1, 40:80], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_steps_notice_new_parameters_and_do_not_make_kernels_twice(monkeypatch):
    mixer, x_BTD, made = build(), torch.randn(1, 60, 4).double(), []
    real = Hyena.kernels
    monkeypatch.setattr(Hyena, "kernels", lambda self, length: made.append(length) or real(self, length))
    _, state = feed(mixer, x_BTD[:, :50], [1] * 50, capacity=60)
    assert made == [60]
    mixer.past.outer.weight.mul_(2)
    _, state = feed(mixer, x_BTD[:, 50:], [1] * 10, state)
    assert made == [60, 60]


def test_training_through_a_state_equals_the_whole():
    mixer, x_BTD = build(order=3), torch.randn(2, 30, 4).double()
    weight = torch.randn(2, 30, 4).double()
    want = torch.autograd.grad((mixer(x_BTD)[0] * weight).sum(), list(mixer.parameters()))
    got = torch.autograd.grad((feed(mixer, x_BTD, [11, 1, 18])[0] * weight).sum(), list(mixer.parameters()))
    assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_the_past_does_not_see_the_future():
    """In float32 an input of 1e4 moves what came before by the rounding of a transform alone."""
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(1, 500, 4)
    spiked_BTD = x_BTD.clone()
    spiked_BTD[:, -1] += 1e4
    with torch.no_grad():
        after_BTD, before_BTD = mixer(spiked_BTD)[0], mixer(x_BTD)[0]
    assert (after_BTD - before_BTD)[:, :-1].abs().max() <= 1e-6 * after_BTD.abs().max()


@torch.no_grad()
def test_beyond_the_unit_of_time_the_same_filter_goes_on():
    mixer, x_BTD = build(), torch.randn(1, 200, 4).double()
    assert_close(mixer(x_BTD)[0][:, :30], mixer(x_BTD[:, :30])[0], rtol=1e-11, atol=1e-11)
    assert mixer.can.length_bound is None
    trained = replace(mixer.config, filter=replace(SMALL, positions=True))
    assert trained.traits().length_bound == 40
    with pytest.raises(ConfigError, match="reaches 40 positions"):
        Hyena(4, trained)(x_BTD[:, :41].float())
    made = Hyena(4, trained).double()
    y_BTD, state = feed(made, x_BTD[:, :40], [1] * 40)  # with more slots than there are taps
    assert_close(y_BTD, made(x_BTD[:, :40])[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(ConfigError, match="reaches 40 positions with these options, not 41"):
        made(x_BTD[:, 40:41], state)


def test_learning_rates():
    names = {name for group in build().param_groups() for name in group.names}
    assert names
    assert all(name.startswith("past.") for name in names)
    slow = build(filter=replace(SMALL, positions=True)).param_groups()[1]
    assert slow.names == ("past.positions",)
    assert slow.lr == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"order": 1}, "order"), ({"conv": 0}, "conv"), ({"conv": 4, "causal": False}, "odd where not causal, not 4")],
)
def test_bad_options_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        Hyena(4, Hyena.Config(**options))


def test_bytes_of_a_state():
    mixer = build(order=3, dtype=torch.float32)
    state = mixer.initial_state(2, capacity=64)
    assert state.nbytes == 2 * mixer.state_bytes(64) == 2 * (4 * (2 * 64 * 4 + 2 * 16) + 3 * 8)
    assert _history.LEAST == 64
