import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm._dss import GUARD
from seqloom.mixers.ssm.dss import DSS
from seqloom.mixers.ssm.s4d import S4D

BARE = {"activation": "none", "output": "none"}


def build(width=3, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return DSS(width, DSS.Config(**{"state": 8, **BARE, **options})).to(dtype)


def numbers(mixer):
    """L (N), z (D, N) and W (R, D, N) in complex128 numpy."""
    bank = mixer.bank
    real = bank.real if mixer.config.form == "softmax" else -bank.decay_log.exp()
    parts = [x.detach().double().numpy() for x in (real, bank.frequency, bank.step_log.exp(), bank.readout)]
    real, turn, dt, W = parts
    return real + 1j * turn, dt[:, :1] * real + 1j * dt[:, -1:] * turn, W[..., 0] + 1j * W[..., 1]


def by_softmax(mixer, length, guard=0.0):
    """The definition: a softmax over the positions, its largest exponent first subtracted."""
    L, z, W = numbers(mixer)
    exponent = z[..., None] * np.arange(length)
    top = np.exp(exponent - exponent.real.max(-1, keepdims=True))
    total = top.sum(-1, keepdims=True)
    x = L[:, None] * total
    reciprocal = x.conj() / (np.abs(x) ** 2 + guard) if guard else 1 / x
    return torch.from_numpy((W[..., None] * top * reciprocal).real.sum(2))


@pytest.mark.parametrize("causal", [True, False])
def test_exp_is_s4d_after_reparameterisation(causal):
    """All modes without a factor 2 are half of the pairs with it, for half the readout."""
    mixer, u_BTD = build(causal=causal), torch.randn(2, 70, 3).double()
    twin = S4D(3, S4D.Config(state=16, causal=causal, **BARE)).double()
    with torch.no_grad():
        twin.bank.step_log.copy_(mixer.bank.step_log[:, 0])
        twin.bank.decay_log.copy_(mixer.bank.decay_log.expand(3, -1))
        twin.bank.frequency.copy_(mixer.bank.frequency.expand(3, -1))
        twin.bank.readout.copy_(mixer.bank.readout / 2)
        twin.skip.copy_(mixer.skip)
        assert_close(mixer.kernel(70), twin.kernel(70), rtol=1e-13, atol=1e-13)
        assert_close(mixer(u_BTD)[0], twin(u_BTD)[0], rtol=1e-13, atol=1e-13)
        if causal:
            (y_BTD, state), (want_BTD, other) = (m(u_BTD, m.initial_state(2)) for m in (mixer, twin))
            assert_close(y_BTD, want_BTD, rtol=1e-13, atol=1e-13)
            assert_close(state.h_BDX, other.h_BDX, rtol=1e-13, atol=1e-13)


def test_initial_eigenvalues_are_the_upper_half_of_the_skew_hippo_matrix():
    n = np.arange(16)
    legs = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1)
    want = np.linalg.eigvals((legs - legs.T) / 2)
    L = numbers(build(state=8))[0]
    assert_close(np.sort(L.imag), np.sort(want.imag[want.imag > 0]), rtol=1e-6, atol=1e-6)  # parameters are float32
    assert_close(L.real, np.full(8, -0.5), rtol=1e-6, atol=1e-6)
    assert_close(numbers(build(form="softmax"))[0], numbers(build())[0], rtol=1e-6, atol=1e-6)
    W = build(64, state=64).bank.readout.detach()
    assert float(W.var()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("phase_steps", [False, True])
@pytest.mark.parametrize("length", [1, 2, 17, 200])
def test_softmax_is_a_softmax_for_eigenvalues_of_both_signs(length, phase_steps):
    mixer = build(form="softmax", phase_steps=phase_steps, causal=False)
    with torch.no_grad():
        mixer.bank.real[::2].neg_()
        mixer.bank.step_log.add_(torch.randn_like(mixer.bank.step_log))
        got_RDL = mixer.kernel(length)
    assert_close(got_RDL, by_softmax(mixer, length, GUARD), rtol=1e-11, atol=1e-11)
    want_RDL = by_softmax(mixer, length)
    assert_close(got_RDL, want_RDL, rtol=0, atol=1e-5 * float(want_RDL.abs().max()))  # the guard: 1e-7 / |x|^2


def test_softmax_in_float32_over_16384_positions_where_the_plain_form_overflows():
    mixer = build(2, torch.float32, form="softmax", steps=(0.05, 0.1))
    with torch.no_grad():
        mixer.bank.real.abs_()
        got_RDL = mixer.kernel(16384)
    L, z, W = (torch.from_numpy(x).to(torch.complex64) for x in numbers(mixer))
    naive_DNL = (z[..., None] * torch.arange(16384)).exp()
    naive_RDL = (W[..., None] * naive_DNL / naive_DNL.sum(-1, keepdim=True) / L[:, None]).real.sum(2)
    assert not torch.isfinite(naive_RDL).any()
    want_RDL = by_softmax(mixer, 16384, GUARD)
    assert_close(got_RDL.double(), want_RDL, rtol=0, atol=1e-5 * float(want_RDL.abs().max()))
    assert float(got_RDL.abs().max()) > 0.1  # its weight lies at the far end, and is there


@pytest.mark.parametrize(("real", "turn"), [(0.0, 0.0), (0.0, 2 * math.pi / 16), (1e-12, 1e-12), (-1e-12, 0.0)])
def test_softmax_at_the_zeros_of_its_denominator(real, turn):
    """Where L = 0, and where all powers of one turn cancel, kernel and gradients stay finite and bounded."""
    mixer = build(2, form="softmax", steps=(1.0, 1.0))
    with torch.no_grad():
        mixer.bank.real.fill_(real)
        mixer.bank.frequency.fill_(turn)
    k_RDL = mixer.kernel(16)
    slopes = torch.autograd.grad(k_RDL.square().sum(), list(mixer.bank.parameters()))
    assert torch.isfinite(k_RDL).all()
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert float(k_RDL.detach().abs().max()) < 8 * 5 / math.sqrt(GUARD)


def test_a_softmax_of_one_position_is_one():
    """The guard of the authors' code, on e^z - 1, would take most of it at these steps."""
    mixer = build(form="softmax", steps=(1e-4, 1e-4))
    L, _, W = numbers(mixer)
    assert_close(mixer.kernel(1)[0, :, 0].detach(), torch.from_numpy((W[0] / L).real.sum(1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_rows_of_different_lengths_have_softmaxes_of_their_own(causal):
    mixer, u_BTD = build(form="softmax", causal=causal), torch.randn(3, 9, 3).double()
    with torch.no_grad():
        mixer.bank.real[::2].neg_()
        y_BTD, _ = mixer(u_BTD, layout=Layout(lengths_B=torch.tensor([1, 5, 9])))
        for row, length in enumerate((1, 5, 9)):
            k_RDL, u_TD = by_softmax(mixer, length, GUARD), u_BTD[row, :length]
            want_TD = mixer.skip * u_TD
            for t in range(length):
                for s in range(t + 1 if causal else length):
                    want_TD[t] += u_TD[s] * (k_RDL[0, :, t - s] if s <= t else k_RDL[1, :, s - t - 1])
            assert_close(y_BTD[row, :length], want_TD, rtol=1e-10, atol=1e-10)
        assert float((mixer(u_BTD)[0][1, :5] - y_BTD[1, :5]).abs().max()) > 1e-3


def test_a_softmax_says_that_it_cannot_go_on():
    traits = DSS.Config(form="softmax").traits()
    assert (traits.causal, traits.step, traits.bidirectional) == ("no", "none", "no")
    assert DSS.Config().traits().step == "constant"
    with pytest.raises(ConfigError, match="state"):
        build(form="softmax").initial_state(1)


def test_step_sizes_of_their_own_for_the_phases():
    mixer, plain = build(phase_steps=True), build()
    assert mixer.bank.step_log.shape == (3, 2)
    assert plain.bank.step_log.shape == (3, 1)
    assert_close(mixer.bank.step_log[:, 0], mixer.bank.step_log[:, 1])  # equal at the start
    with torch.no_grad():
        mixer.bank.step_log[:, 1] += 0.7
        _, z, _ = numbers(mixer)
        log_a_DN = mixer.bank.discrete().log_a_DN
    assert_close(log_a_DN, torch.from_numpy(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["exp", "softmax"])
def test_everything_of_the_filter_learns_slowly_and_does_not_shrink(form):
    mixer = DSS(4, DSS.Config(form=form, learning_rate=2e-4))
    (group,) = mixer.param_groups()
    matrix = {"exp": {"bank.decay_log"}, "softmax": {"bank.real"}}[form]
    assert set(group.names) == {"bank.step_log", "bank.frequency", "bank.readout"} | matrix
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)
    assert not any(value.is_complex() for value in mixer.parameters())
    assert mixer.bank.frequency.shape == (64,)  # one matrix for all channels


@pytest.mark.parametrize("form", ["exp", "softmax"])
def test_autocast_does_not_touch_the_kernel(form):
    mixer, u_BTD = build(dtype=torch.float32, form=form), torch.randn(1, 200, 3)
    want_BTD, k_RDL = mixer(u_BTD)[0], mixer.kernel(200)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(u_BTD)[0], want_BTD)
        assert torch.equal(mixer.kernel(200), k_RDL)


@pytest.mark.parametrize("options", [{"state": 0}, {"form": "sparsemax"}, {"steps": (0.1, 0.01)}], ids=str)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"state|form|steps"):
        DSS(3, DSS.Config(**options))
