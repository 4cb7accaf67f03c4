"""HiPPO against scipy and dense algebra; what it remembers against the signal; the laws that the paper states."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.long_conv import long_conv
from seqloom.mixers.ssm import hippo as home
from seqloom.mixers.ssm._modes import SHORT
from seqloom.mixers.ssm._projection import basis
from seqloom.mixers.ssm._transition import transition
from seqloom.mixers.ssm.hippo import HiPPO
from seqloom.testing.mixers import check_mixer

signal = pytest.importorskip("scipy.signal")
special = pytest.importorskip("scipy.special")

MEMORIES = ("legs", "legt", "lmu", "lagt", "fourier")
SLIDING = ("legt", "lmu", "fourier")


def build(memory, width=2, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return HiPPO(width, HiPPO.Config(**{"memory": memory, "state": 9, "window": 20.0, **options})).to(dtype)


def one_by_one(memory, u_TC, size, window):
    """Every state by dense solves in numpy, from the paper's equations."""
    sliding = memory not in ("legs", "lagt")
    A, B = (x.numpy() for x in transition(memory, size, window if sliding else 1.0))
    c, found, one = np.zeros((size, u_TC.shape[1])), [], np.eye(size)
    for k, u in enumerate(u_TC.numpy(), 1):
        h = {"legs": 1 / k, "lagt": 1 / window}.get(memory, 1.0)
        c = np.linalg.solve(one - h / 2 * A, (one + h / 2 * A) @ c + h * np.outer(B, u))
        found.append(c)
    return torch.from_numpy(np.stack(found)).transpose(1, 2)


def band_limited(length, cycles=6, seed=0):
    """A sum of eight sines of up to so many cycles over the whole."""
    rng = np.random.default_rng(seed)
    t = (np.arange(length) + 0.5) / length
    waves = [rng.normal() * np.sin(2 * np.pi * (k * cycles / 8 * t + rng.random())) for k in range(1, 9)]
    return torch.from_numpy(np.sum(waves, 0))


def loss_of(memory, u_T, size, window=1.0, dtype=torch.float64, seen=None):
    """Relative error of what is reconstructed of the last ``seen`` inputs."""
    mixer = HiPPO(1, HiPPO.Config(memory=memory, state=size, window=window)).to(dtype)
    with torch.no_grad():
        state = mixer(u_T.to(dtype)[None, :, None], mixer.initial_state(1))[1]
    want_P = u_T.flip(0)[:seen]
    got_P = mixer.reconstruct(state, torch.arange(len(want_P)) + 0.5)[0, :, 0].double()
    return float((got_P - want_P).norm() / want_P.norm())


@pytest.mark.parametrize("length", [1, 5, SHORT + 1, 70])
@pytest.mark.parametrize("memory", MEMORIES)
def test_states_are_those_of_the_equations(memory, length):
    mixer, u_BTC = build(memory), torch.randn(2, length, 2).double()
    with torch.no_grad():
        got_BTCN = mixer.coefficients(u_BTC, mixer.initial_state(2))
        stepped, state = [], mixer.initial_state(2)
        for u_B1C in u_BTC.split(1, 1):
            state = mixer(u_B1C, state)[1]
            stepped.append(state.c_BCN)
    for row in range(2):
        want_TCN = one_by_one(memory, u_BTC[row], 9, 20.0)
        assert_close(got_BTCN[row], want_TCN, rtol=1e-9, atol=1e-9)
        assert_close(torch.stack(stepped, 1)[row], want_TCN, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", MEMORIES)
def test_goes_on_from_a_state(memory):
    """Rows of different lengths, few and many columns; legs counts each row's own positions."""
    mixer, x_BTD = build(memory, channels=3, outputs=2), torch.randn(3, 60, 2).double()
    with torch.no_grad():
        state = mixer(x_BTD[:, :9], mixer.initial_state(3), layout=Layout(lengths_B=torch.tensor([9, 4, 0])))[1]
        y_BTD, after = mixer(x_BTD[:, 9:], state, layout=Layout(lengths_B=torch.tensor([51, 0, 20])))
        for row, (first, second) in enumerate(((9, 51), (4, 0), (0, 20))):
            own_1TD = torch.cat([x_BTD[row, :first], x_BTD[row, 9 : 9 + second]])[None]
            want_1TD, want = mixer(own_1TD, mixer.initial_state(1))
            assert_close(y_BTD[row, :second], want_1TD[0, first:], rtol=1e-9, atol=1e-9)
            assert_close(after.c_BCN[row], want.c_BCN[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", ["legt", "lmu", "lagt", "fourier"])
def test_kernels_are_impulse_responses_of_scipy(memory):
    mixer = build(memory, activation="none", output="none", state=8)
    sliding = memory != "lagt"
    A, B = (x.numpy() for x in transition(memory, 8, 20.0 if sliding else 1.0))
    C = mixer.readout.detach().flatten(0, 1).numpy()
    step = 1.0 if sliding else 1 / 20
    Ad, Bd, *_ = signal.cont2discrete((A, B[:, None], C, np.zeros((2, 1))), step, method="gbt", alpha=0.5)
    pulse = np.eye(50)[0]
    want = signal.dlsim((Ad, Bd, C @ Ad, C @ Bd, step), pulse)[1]
    with torch.no_grad():
        assert_close(mixer.kernel(50).T, torch.from_numpy(want), rtol=1e-9, atol=1e-9)
        u_BTD = torch.randn(1, 50, 2).double()
        assert_close(mixer(u_BTD)[0], long_conv(u_BTD, mixer.kernel(50), None, mixer.skip), rtol=1e-9, atol=1e-9)


def test_bases_are_those_of_scipy_and_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(60)
    share = torch.from_numpy((1 - nodes) / 2)[None]
    for kind in ("legs", "legt", "fourier"):
        f_PN = basis(kind, 12, share)[0].numpy()
        kept = np.array([n for n in range(12) if (kind, n) != ("fourier", 1)])  # the sine of frequency 0
        np.testing.assert_allclose((0.5 * weights * f_PN.T @ f_PN)[np.ix_(kept, kept)], np.eye(len(kept)), atol=1e-10)
    legendre = np.stack([special.eval_legendre(n, nodes) for n in range(12)], 1)
    np.testing.assert_allclose(basis("lmu", 12, share)[0].numpy(), legendre, atol=1e-12)
    at = np.linspace(0, 9, 30)
    laguerre = np.stack([np.exp(-at / 2) * special.eval_laguerre(n, at) for n in range(12)], 1)
    np.testing.assert_allclose(basis("lagt", 12, torch.from_numpy(at)[None])[0].numpy(), laguerre, atol=1e-10)


@pytest.mark.parametrize(("memory", "left"), [("legs", 0.02), ("legt", 0.07), ("lmu", 0.07), ("fourier", 0.2)])
def test_more_coefficients_remember_better(memory, left):
    """Until what is left is the memory's own: the first steps of legs, the edge of a window, the jump of a series."""
    u_T = band_limited(2000)
    first, second, third = (loss_of(memory, u_T, size, 2000.0) for size in (8, 16, 24))
    assert third < 0.7 * second < 0.7**2 * first
    assert first > 0.6
    assert third < left


def test_ten_thousand_positions_in_256_coefficients():
    u_T = band_limited(10_000, cycles=60)
    assert loss_of("legs", u_T, 256) < 0.05
    assert abs(loss_of("legs", u_T, 256, dtype=torch.float32) - loss_of("legs", u_T, 256)) < 0.01
    assert loss_of("legs", u_T, 32) > 0.5


def test_legs_has_no_time_scale_and_a_window_has():
    """A signal of twice as many samples loses the same; a window made for the shorter one has forgotten its half."""
    short_T, long_T = band_limited(2000), band_limited(4000)
    losses = [loss_of("legs", u_T, 32) for u_T in (short_T, long_T)]
    assert abs(losses[0] - losses[1]) <= 0.01
    assert max(losses) < 0.02
    fitting = loss_of("legt", long_T, 32, 4000.0)
    mixer = HiPPO(1, HiPPO.Config(memory="legt", state=32, window=2000.0)).double()
    with torch.no_grad():
        state = mixer(long_T[None, :, None], mixer.initial_state(1))[1]
    with pytest.raises(ConfigError, match="what the memory sees"):
        mixer.reconstruct(state, torch.tensor([3000.0]))
    stretched_P = mixer.reconstruct(state, (torch.arange(4000) + 0.5) / 2)[0, :, 0]  # taken for the whole signal
    wrong = float((stretched_P - long_T.flip(0)).norm() / long_T.norm())
    assert fitting < 0.05
    assert wrong > 0.5


def test_a_fading_memory_knows_the_near_past_best():
    u_T = band_limited(600, cycles=4)
    mixer = HiPPO(1, HiPPO.Config(memory="lagt", state=48, window=20.0)).double()
    with torch.no_grad():
        state = mixer(u_T[None, :, None], mixer.initial_state(1))[1]
    got_P = mixer.reconstruct(state, torch.arange(600) + 0.5)[0, :, 0]
    error_P = (got_P - u_T.flip(0)).abs()
    assert error_P[50:150].mean() < 0.3 * u_T.abs().mean()
    assert error_P[50:150].mean() < 0.5 * error_P[-100:].mean()


def test_each_row_is_reconstructed_over_its_own_length():
    mixer, u_T = build("legs", 1, state=24), band_limited(200, cycles=2)
    x_BTD = torch.stack([u_T, torch.cat([u_T[:120], torch.zeros(80).double()])])[..., None]
    with torch.no_grad():
        state = mixer(x_BTD, mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([200, 120])))[1]
    got_BP = mixer.reconstruct(state, torch.tensor([10.5, 60.5]))[..., 0]
    want_BP = torch.stack([u_T[[189, 139]], u_T[[109, 59]]])
    assert (got_BP - want_BP).abs().max() < 0.05 * u_T.abs().max()


@pytest.mark.parametrize("memory", SLIDING)
def test_the_convolution_with_a_state_keeps_the_contract(memory, monkeypatch):
    """The contract's few columns take the recurrence; here they take the other way."""
    monkeypatch.setattr(home, "SHORT", 0)
    config = HiPPO.Config(memory=memory, state=4, window=8.0, channels=3)
    check_mixer(config, checks=["continuation", "padding", "packing", "rollback"])


def test_the_memory_has_no_parameters():
    names = {name for name, _ in HiPPO(4).named_parameters()}
    assert names == {"readout", "skip", "after.map.weight", "after.map.bias"}
    assert not list(HiPPO(4).buffers())


@pytest.mark.parametrize("options", [{"state": 0}, {"outputs": 0}, {"channels": -1}, {"window": 0.0}], ids=str)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="HiPPO needs"):
        HiPPO(3, HiPPO.Config(**options))


def test_legs_has_no_kernel():
    with pytest.raises(ConfigError, match="changes with time"):
        HiPPO(3).kernel(5)
    assert not HiPPO.Config(activation="none").traits().lti
    assert HiPPO.Config(memory="legt", activation="none").traits().lti
    assert math.isclose(HiPPO.Config().window, 64.0)
