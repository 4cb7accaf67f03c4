import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm import liquid_s4
from seqloom.mixers.ssm.liquid_s4 import LiquidS4
from seqloom.mixers.ssm.s4d import S4D
from seqloom.testing.mixers import check_mixer

BARE = {"activation": "none", "output": "none"}


def build(width=3, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return LiquidS4(width, LiquidS4.Config(**{"state": 8, **BARE, **options})).to(dtype)


@torch.no_grad()
def system(mixer, which=0):
    """a, b, C (D, N) and s (D), by the rule's own formula in numpy."""
    bank = mixer.bank
    A = -bank.decay_log.double().exp().numpy() + 1j * bank.frequency.double().numpy()
    dt = bank.step_log.double().exp().numpy()[:, None]
    C = (bank.readout[which].double() * torch.tensor([1.0, 1.0j])).sum(-1).numpy()
    if mixer.config.discretisation == "zoh":
        a = np.exp(dt * A)
        return a, (a - 1) / A, C, mixer.skip.double().numpy()
    return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2), C, mixer.skip.double().numpy()


def exact(mixer, u_TD):
    """The bilinear recurrence: the input moves the transition."""
    a, b, C, s = system(mixer)
    x, found = np.zeros_like(a), []
    for u in u_TD.numpy()[..., None]:
        x = (a + b * u) * x + b * u
        found.append(2 * (C * x).sum(1).real + s * u[:, 0])
    return torch.from_numpy(np.stack(found))


def series(mixer, u_TD, degree):
    """Its terms of up to a degree: x_p takes what x_{p-1} was and multiplies it by b u."""
    a, b, C, s = system(mixer)
    x, found = np.zeros((degree + 1, *a.shape), dtype=complex), []
    for u in u_TD.numpy()[..., None]:
        x[1:] = a * x[1:] + b * u * np.concatenate([np.ones((1, *a.shape)), x[1:-1]])
        found.append(2 * (C * x.sum(0)).sum(1).real + s * u[:, 0])
    return torch.from_numpy(np.stack(found))


def by_loops(mixer, v_PTD):
    """Kernels times products by sums over lags; v[p - 1] are the products of degree p."""
    config, length = mixer.config, v_PTD.shape[1]
    y = system(mixer)[3] * v_PTD[0]
    for which in range(mixer.readouts):
        a, b, C, _ = system(mixer, which)
        for p, v in enumerate(v_PTD, 1):
            taps = [2 * (C * b**p * a**lag).sum(1).real for lag in range(length)]
            if p > 1 and config.terms == "pb":
                taps = [taps[0] * (which == 0)] + [0 * tap for tap in taps[1:]]
                y = y + taps[0] * v
                continue
            for t, s in itertools.product(range(length), repeat=2):
                if (s <= t) == (which == 0):
                    y[t] = y[t] + taps[t - s if s <= t else s - t - 1] * v[s]
    return torch.from_numpy(y)


def neighbours(u, degree):
    """u_t u_{t-1} ... u_{t-p+1}, nothing before the first input."""
    padded = np.concatenate([np.zeros((degree, *u.shape[1:])), u])
    return np.stack(
        [np.prod([padded[degree - j : degree - j + len(u)] for j in range(p)], 0) for p in range(1, degree + 1)]
    )


def last_combinations(u, degree):
    """As the authors' code has it: T of the subsets of the fewest last positions that have as many, turned around."""
    length, found = len(u), [u]
    for p in range(2, degree + 1):
        among = next(n for n in range(length) if math.comb(n, p) >= length)
        chosen = list(itertools.combinations(range(length - among, length), p))[-length:]
        found.append(np.stack([np.prod(u[list(places)], 0) for places in chosen])[::-1])
    return np.stack(found)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("terms", ["kb", "pb"])
@pytest.mark.parametrize("causal", [True, False])
def test_equals_kernels_times_neighbouring_products_by_loops(terms, causal, rule):
    mixer = build(degree=4, terms=terms, causal=causal, discretisation=rule)
    u_TD = torch.randn(21, 3).double()
    want_TD = by_loops(mixer, neighbours(u_TD.numpy(), 4))
    assert_close(mixer(u_TD[None])[0][0].detach(), want_TD, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("terms", ["kb", "pb"])
def test_equals_kernels_times_the_last_combinations_by_loops(terms):
    mixer = build(degree=3, terms=terms, products="combinations")
    u_BTD = torch.randn(2, 21, 3).double()
    y_BTD = mixer(u_BTD, layout=Layout(lengths_B=torch.tensor([21, 13])))[0].detach()
    for row, length in enumerate((21, 13)):
        want_TD = by_loops(mixer, last_combinations(u_BTD[row, :length].numpy(), 3))
        assert_close(y_BTD[row, :length], want_TD, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("length", "size"), [(1000, 2), (1000, 6), (5, 3), (1, 2)])
def test_subsets_are_those_of_itertools_in_order_of_their_largest(length, size):
    ages_TP, some_T = liquid_s4._subsets(length, size, torch.device("cpu"))
    among = next(n for n in itertools.count(size) if math.comb(n, size) >= length)
    want = sorted(itertools.combinations(range(among), size), key=lambda places: places[::-1])[:length]
    inside = [places for places in want if places[-1] < length]
    assert int(some_T.sum()) == len(inside)
    assert [tuple(ages) for ages in ages_TP[some_T].flip(1).tolist()] == inside


def test_subsets_of_a_long_sequence_are_found_without_overflow():
    """C(16384, 6) has 75 bits."""
    ages_TP, some_T = liquid_s4._subsets(16384, 6, torch.device("cpu"))
    assert some_T.all()
    numbers = [sum(math.comb(age, 6 - k) for k, age in enumerate(ages)) for ages in ages_TP[::1111].tolist()]
    assert numbers == list(range(0, 16384, 1111))


def test_the_series_comes_nearer_to_the_bilinear_recurrence_with_every_degree():
    mixer, u_TD = build(discretisation="zoh", steps=(0.1, 0.3)), 0.3 * torch.randn(60, 3).double()
    want_TD = exact(mixer, u_TD)
    errors = [float((series(mixer, u_TD, degree) - want_TD).abs().max()) for degree in range(1, 8)]
    assert all(more > 2 * less for more, less in itertools.pairwise(errors)), errors
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_is_the_bilinear_recurrence_itself_where_inputs_come_in_pairs(rule):
    """Then all products but those of neighbours vanish, and degree 2 is all there is."""
    mixer, u_TD = build(degree=2, discretisation=rule, steps=(0.1, 0.3)), torch.zeros(40, 3).double()
    u_TD[7:9] = torch.randn(2, 3).double()
    assert_close(mixer(u_TD[None])[0][0].detach(), exact(mixer, u_TD), rtol=1e-11, atol=1e-11)
    linear = build(degree=1, discretisation=rule, steps=(0.1, 0.3))
    assert (linear(u_TD[None])[0][0] - exact(mixer, u_TD)).abs().max() > 1e-3


def test_pb_keeps_nothing_of_a_product():
    u_BTD = torch.zeros(1, 30, 3).double()
    u_BTD[:, 4:6] = 1
    kb, pb, linear = (
        build(degree=degree, terms=terms)(u_BTD)[0] for degree, terms in ((2, "kb"), (2, "pb"), (1, "kb"))
    )
    assert_close(pb[:, 6:], linear[:, 6:])
    assert_close(pb[:, 5], kb[:, 5])
    assert (kb - linear)[:, 6:].abs().max() > 1e-6


@pytest.mark.parametrize("terms", ["kb", "pb"])
def test_steps_chunks_and_the_whole_agree_and_the_state_is_modes_and_inputs(terms):
    mixer, u_BTD = build(degree=3, terms=terms), torch.randn(2, 50, 3).double()
    with torch.no_grad():
        want_BTD = mixer(u_BTD)[0]
        for cuts in ([1] * 50, [1, 2, 40, 7]):
            state, pieces = mixer.initial_state(2), []
            for piece_BTD in u_BTD.split(cuts, 1):
                y_BTD, state = mixer(piece_BTD, state)
                pieces.append(y_BTD)
            assert_close(torch.cat(pieces, 1), want_BTD, rtol=1e-10, atol=1e-10)
            assert state.h_BDX.shape == (2, 3, 8 + 2)
            assert_close(state.h_BDX[..., 8:], u_BTD[:, -2:].mT)


@pytest.mark.parametrize("terms", ["kb", "pb"])
def test_the_convolution_with_a_state_keeps_the_contract(terms, monkeypatch):
    """The contract's few columns take the recurrence; here they take the other way."""
    monkeypatch.setattr(liquid_s4, "SHORT", 0)
    config = LiquidS4.Config(state=4, degree=3, terms=terms)
    check_mixer(config, checks=["continuation", "padding", "rollback", "gradcheck"])


def test_degree_one_is_s4d():
    mixer, u_BTD = build(degree=1), torch.randn(2, 33, 3).double()
    twin = S4D(3, S4D.Config(state=8, discretisation="bilinear", **BARE)).double()
    twin.load_state_dict(mixer.state_dict())
    assert_close(mixer(u_BTD)[0], twin(u_BTD)[0], rtol=1e-12, atol=1e-12)
    assert LiquidS4.Config(degree=1, **BARE).traits().lti
    assert not LiquidS4.Config(degree=2, **BARE).traits().lti


def test_combinations_see_the_future_and_say_so():
    mixer, u_BTD = build(products="combinations"), torch.randn(1, 9, 3).double().requires_grad_()
    (slope_BTD,) = torch.autograd.grad(mixer(u_BTD)[0][:, 0].sum(), u_BTD)
    assert float(slope_BTD[:, -1].abs().max()) > 0
    traits = LiquidS4.Config(products="combinations").traits()
    assert (traits.causal, traits.step) == ("no", "none")
    assert LiquidS4.Config().traits().causal == "fft"
    with pytest.raises(ConfigError, match="state"):
        mixer.initial_state(1)


def accuracy(mixer, rows=256, length=32, steps=150):
    """Of the sign of sum_t u_t u_{t+1}, from the mean over time of one layer, after a short training."""
    rng = torch.Generator().manual_seed(3)
    head = nn.Linear(mixer.width, 1)
    optimiser = torch.optim.Adam([*mixer.parameters(), *head.parameters()], lr=1e-2)

    def draw():
        u_BT = torch.randn(rows, length, generator=rng)
        return u_BT[..., None].expand(-1, -1, mixer.width), ((u_BT[:, 1:] * u_BT[:, :-1]).sum(1) > 0).float()

    for _ in range(steps):
        u_BTD, label_B = draw()
        loss = nn.functional.binary_cross_entropy_with_logits(head(mixer(u_BTD)[0].mean(1))[:, 0], label_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        u_BTD, label_B = draw()
        return float(((head(mixer(u_BTD)[0].mean(1))[:, 0] > 0) == (label_B > 0)).float().mean())


def test_learns_a_label_of_products_that_the_linear_model_cannot():
    """Turning every sign turns a linear model's logit around and leaves the label: it is right half of the time."""
    torch.manual_seed(0)
    found = [
        accuracy(LiquidS4(4, LiquidS4.Config(state=8, degree=degree, steps=(0.1, 1.0), **BARE))) for degree in (1, 2)
    ]
    assert found[1] >= found[0] + 0.2, found
    assert found[1] > 0.85, found


def test_autocast_does_not_touch_the_kernels():
    mixer, u_BTD = build(dtype=torch.float32, degree=3), torch.randn(1, 100, 3)
    want_BTD = mixer(u_BTD)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(u_BTD)[0], want_BTD)


def test_parameters_are_those_of_the_bank():
    mixer = LiquidS4(4, LiquidS4.Config(learning_rate=2e-4, degree=5))
    assert {name: value.shape for name, value in mixer.named_parameters()} == {
        name: value.shape for name, value in S4D(4).named_parameters()
    }  # products cost no parameter
    (group,) = mixer.param_groups()
    assert set(group.names) == {"bank.step_log", "bank.decay_log", "bank.frequency"}
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)


@pytest.mark.parametrize(
    "options", [{"state": 7}, {"degree": 0}, {"degree": 7}, {"terms": "ab"}, {"products": "all"}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"state|degree|terms"):
        LiquidS4(3, LiquidS4.Config(**options))
