import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import Counter, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.linear_scan import linear_scan
from seqloom.mixers.ssm import _modes
from seqloom.mixers.ssm._modes import SHORT
from seqloom.mixers.ssm._transition import eigenvalues
from seqloom.mixers.ssm.s4d import S4D
from seqloom.testing.mixers import check_mixer

signal = pytest.importorskip("scipy.signal")

INITS = ("lin", "inv", "legs", "real")
RULES = ("zoh", "bilinear")
BARE = {"activation": "none", "output": "none"}


def build(width=3, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return S4D(width, S4D.Config(**{"state": 16, **BARE, **options})).to(dtype)


@torch.no_grad()
def by_scipy(mixer, u_TD):
    """Each channel as a real system of twice the modes, discretised and simulated by scipy in float64.

    scipy's system answers u_t at t + 1 (and its bilinear rule changes C too): ours is (A, B, C A, C B + D).
    """
    bank, columns = mixer.bank, []
    for d in range(mixer.width):
        A, step = -bank.decay_log[d].double().exp(), float(bank.step_log[d].double().exp())
        blocks = [np.array([[x, -y], [y, x]]) for x, y in zip(A.tolist(), bank.frequency[d].tolist(), strict=True)]
        A, B = np.zeros((2 * len(blocks), 2 * len(blocks))), np.zeros((2 * len(blocks), 1))
        for n, block in enumerate(blocks):
            A[2 * n : 2 * n + 2, 2 * n : 2 * n + 2], B[2 * n] = block, 1.0
        C = (bank.readout[0, d].double().numpy() * [2, -2]).reshape(1, -1)
        rule = mixer.config.discretisation
        A, B, *_ = signal.cont2discrete((A, B, C, np.zeros((1, 1))), step, method=rule)
        system = (A, B, C @ A, C @ B + mixer.skip[d].item(), step)
        columns.append(signal.dlsim(system, u_TD[:, d].double().numpy())[1][:, 0])
    return torch.from_numpy(np.stack(columns, 1))


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("init", INITS)
def test_equals_scipy_whole_and_step_by_step(init, rule):
    mixer, u_BTD = build(init=init, discretisation=rule), torch.randn(1, 70, 3).double()
    want_TD = by_scipy(mixer, u_BTD[0])
    with torch.no_grad():
        assert_close(mixer(u_BTD)[0][0], want_TD, rtol=1e-9, atol=1e-9)
        assert_close(by_steps(mixer, u_BTD)[0][0], want_TD, rtol=1e-9, atol=1e-9)
        halves_BTD, state = mixer(u_BTD[:, :29], mixer.initial_state(1))
        assert_close(halves_BTD[0], want_TD[:29], rtol=1e-9, atol=1e-9)
        assert_close(mixer(u_BTD[:, 29:], state)[0][0], want_TD[29:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("init", INITS)
def test_float32_equals_scipy_in_float64_at_4096(init, rule):
    mixer, u_BTD = build(2, torch.float32, init=init, discretisation=rule, state=64), torch.randn(1, 4096, 2)
    want_TD = by_scipy(mixer, u_BTD[0])
    with torch.no_grad():
        error = (mixer(u_BTD)[0][0] - want_TD).abs().max() / want_TD.abs().max()
    assert error < 2e-6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("init", INITS)
def test_kernel_scan_and_step_agree(init, rule):
    mixer, u_BTD = build(init=init, discretisation=rule), torch.randn(2, 50, 3).double()
    with torch.no_grad():
        log_a_DN, a_DN, c_RDN = mixer.bank.discrete()[:3]
        k_DL = mixer.kernel(50)[0]
        conv_BTD = torch.stack([sum(k_DL[:, lag] * u_BTD[:, t - lag] for lag in range(t + 1)) for t in range(50)], 1)
        assert_close(log_a_DN.exp(), a_DN)
        a_BTX = a_DN.flatten().expand(2, 50, -1)
        u_BTX = u_BTD[..., None].expand(-1, -1, -1, 8).flatten(2).to(torch.complex128)
        h_BTX, last_BX = linear_scan(a_BTX.contiguous(), u_BTX, torch.zeros_like(u_BTX[:, 0]))
        scan_BTD = (h_BTX.unflatten(2, (3, 8)) * c_RDN[0]).sum(-1).real
        step_BTD, state = by_steps(mixer, u_BTD)
        assert_close(scan_BTD, conv_BTD, rtol=1e-10, atol=1e-10)
        assert_close(step_BTD - mixer.skip * u_BTD, conv_BTD, rtol=1e-10, atol=1e-10)
        assert_close(mixer(u_BTD)[0] - mixer.skip * u_BTD, conv_BTD, rtol=1e-10, atol=1e-10)
        assert_close(torch.view_as_complex(state.h_BDX).flatten(1), last_BX, rtol=1e-10, atol=1e-10)
        assert_close(mixer(u_BTD, mixer.initial_state(2))[1].h_BDX, state.h_BDX, rtol=1e-10, atol=1e-10)


def test_eigenvalues_are_those_of_the_paper():
    n = np.arange(16)
    A = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1)
    normal = A + np.outer(np.sqrt(n + 0.5), np.sqrt(n + 0.5))
    want, half = np.linalg.eigvals(normal), eigenvalues("legs", 8).numpy()
    assert_close(np.sort(np.concatenate([half.imag, -half.imag])), np.sort(want.imag), rtol=1e-9, atol=1e-9)
    assert_close(half.real, want.real[:8], rtol=1e-9, atol=1e-9)
    turns = [-0.5, -0.5 + math.pi * 1j, -0.5 + 2 * math.pi * 1j]
    assert_close(eigenvalues("lin", 3), torch.tensor(turns, dtype=torch.complex128))
    assert_close(eigenvalues("real", 3), torch.tensor([-1, -2, -3], dtype=torch.complex128))
    inverse = [6 / math.pi * (6 / 1 - 1), 6 / math.pi * (6 / 3 - 1), 6 / math.pi * (6 / 5 - 1)]
    assert_close(eigenvalues("inv", 3).imag, torch.tensor(inverse, dtype=torch.float64))


def test_bidirectional_counts_lag_zero_once():
    mixer, u_BTD = build(causal=False), torch.randn(2, 23, 3).double()
    with torch.no_grad():
        past_DL, future_DL = mixer.kernel(23)
        want_BTD = mixer.skip * u_BTD
        for t in range(23):
            for s in range(23):
                tap_D = past_DL[:, t - s] if s <= t else future_DL[:, s - t - 1]
                want_BTD[:, t] += tap_D * u_BTD[:, s]
        assert_close(mixer(u_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
    with pytest.raises(ConfigError, match="state"):
        mixer.initial_state(1)


def test_what_follows_the_convolution():
    u_BTD = torch.randn(2, 9, 3).double()
    mixer = build(activation="gelu", output="glu")
    bare = build()
    bare.load_state_dict({name: value for name, value in mixer.state_dict().items() if "map" not in name})
    value, gate = torch.nn.functional.linear(
        torch.nn.functional.gelu(bare(u_BTD)[0]), mixer.after.map.weight, mixer.after.map.bias
    ).chunk(2, -1)
    assert_close(mixer(u_BTD)[0], value * gate.sigmoid())
    assert S4D.Config().activation == "gelu"
    assert S4D.Config().output == "glu"
    assert not S4D.Config().traits().lti
    assert S4D.Config(activation="none", output="linear").traits().lti


@pytest.mark.parametrize("length", [1, 2, SHORT, SHORT + 1, 61])
def test_few_and_many_columns_continue_alike(length):
    """Both sides of the switch between recurrence and convolution, with rows of different lengths."""
    mixer, x_BTD = build(), torch.randn(3, 7 + length, 3).double()
    lengths_B = torch.tensor([0, (length + 1) // 2, length])
    with torch.no_grad():
        state = mixer(x_BTD[:, :7], mixer.initial_state(3))[1]
        got_BTD, after = mixer(x_BTD[:, 7:], state, layout=Layout(lengths_B=lengths_B))
        for row, count in enumerate(lengths_B.tolist()):
            want_BTD, want = by_steps(mixer, x_BTD[row : row + 1, : 7 + count])
            assert_close(got_BTD[row, :count], want_BTD[0, 7:], rtol=1e-10, atol=1e-10)
            assert_close(after.h_BDX[row], want.h_BDX[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", S4D.grid()[:3], ids=lambda config: f"{config.init}-{config.discretisation}")
def test_the_convolution_with_a_state_keeps_the_contract(config, monkeypatch):
    """The contract's few columns take the recurrence; here they take the other way."""
    monkeypatch.setattr(_modes, "SHORT", 0)
    config = replace(config, state=8)
    check_mixer(config, checks=["continuation", "padding", "packing", "rollback", "gradcheck", "extremes"])


def test_a_short_row_beside_a_long_one_keeps_its_own_state():
    """Undoing the pads' decay would multiply by exp(4000): the row's own powers must be used."""
    mixer = build(init="real", steps=(0.1, 0.1), dtype=torch.float32)
    u_BTD = torch.randn(2, 4000, 3)
    with torch.no_grad():
        layout = Layout(lengths_B=torch.tensor([5, 4000]))
        state = mixer(u_BTD, mixer.initial_state(2), layout=layout)[1]
        alone = mixer(u_BTD[:1, :5], mixer.initial_state(1))[1]
    assert_close(state.h_BDX[:1], alone.h_BDX)
    assert state.length_B.tolist() == [5, 4000]


def test_real_modes_at_the_pole_of_the_bilinear_rule():
    """Dt A = -2 makes a = 0, which has no logarithm."""
    mixer = build(init="real", discretisation="bilinear", steps=(0.5, 0.5))
    with torch.no_grad():
        mixer.bank.step_log.fill_(math.log(0.5))
        mixer.bank.decay_log.fill_(math.log(4.0))
    u_BTD = torch.randn(1, 20, 3).double()
    y_BTD = mixer(u_BTD)[0]
    assert_close(y_BTD[0].detach(), by_scipy(mixer, u_BTD[0]), rtol=1e-9, atol=1e-9)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(y_BTD.sum(), list(mixer.parameters())))


def test_autocast_does_not_touch_the_kernel():
    mixer, u_BTD = build(dtype=torch.float32), torch.randn(1, 200, 3)
    want_BTD, k_RDL = mixer(u_BTD)[0], mixer.kernel(200)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(u_BTD)[0], want_BTD)
        assert torch.equal(mixer.kernel(200), k_RDL)


def test_parameters_are_real_pairs_in_their_groups():
    mixer = S4D(4, S4D.Config(learning_rate=2e-4))
    assert not any(value.is_complex() for value in mixer.parameters())
    (group,) = mixer.param_groups()
    assert set(group.names) == {"bank.step_log", "bank.decay_log", "bank.frequency"}
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)
    steps_D = S4D(4000).bank.step_log.detach().exp()
    assert float(steps_D.min()) >= 0.999e-3
    assert float(steps_D.max()) <= 1.001e-1
    assert float(steps_D.median()) == pytest.approx(1e-2, rel=0.1)  # log-uniform


def test_a_step_is_elementwise():
    mixer = build()
    with torch.no_grad(), Counter() as counter:
        mixer(torch.randn(1, 1, 3).double(), mixer.initial_state(1))
    assert counter.macs.total == 0
    assert counter.macs.elementwise < 60 * 3 * 8


def test_memory_grows_with_the_length_and_not_with_length_times_state():
    mixer = build(8, torch.float32, state=64)
    u_BTD = torch.randn(1, 2048, 8).requires_grad_()
    assert saved_bytes(lambda: mixer(u_BTD)[0]) < 3 * u_BTD.nbytes


def test_initial_outputs_have_the_size_that_the_initialisation_implies():
    """For white inputs E y^2 = skip^2 + sum_l k_l^2 = 1 + 2 sum_n |b|^2 / (1 - |a|^2), as C has unit variance."""
    mixer = S4D(256, S4D.Config(init="lin", **BARE))
    with torch.no_grad():
        _, a_DN, c_RDN = mixer.bank.discrete()[:3]
        b_DN = (c_RDN / torch.view_as_complex(mixer.bank.readout.double())).abs()[0] / 2
        energy_D = (2 * b_DN**2 / (1 - a_DN.abs() ** 2)).sum(1)
        spread = [float(mixer(torch.randn(4, T, 256))[0][:, -T // 4 :].std()) for T in (4096, 8192)]
    assert spread[0] == pytest.approx(math.sqrt(1 + float(energy_D.mean())), rel=0.1)
    assert spread[1] == pytest.approx(spread[0], rel=0.05)


@pytest.mark.parametrize(
    "options", [{"state": 7}, {"state": 0}, {"steps": (0.1, 0.01)}, {"steps": (0.0, 0.1)}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"state|steps"):
        S4D(3, S4D.Config(**options))


def test_spectrum_and_rule_are_those_of_the_options():
    lin, real = (S4D(2, S4D.Config(state=8, init=init)).bank for init in ("lin", "real"))
    torch.testing.assert_close(lin.frequency[0], torch.pi * torch.arange(4.0))
    torch.testing.assert_close(real.decay_log[0].exp(), torch.arange(1.0, 5.0))
    zoh, bilinear = (S4D(2, S4D.Config(state=8, discretisation=rule)) for rule in ("zoh", "bilinear"))
    bilinear.load_state_dict(zoh.state_dict())
    half = torch.complex(-zoh.bank.decay_log.exp(), zoh.bank.frequency) * zoh.bank.step_log.exp()[:, None]
    torch.testing.assert_close(zoh.bank.discrete()[1].to(half.dtype), half.exp())
    torch.testing.assert_close(bilinear.bank.discrete()[1].to(half.dtype), (1 + half / 2) / (1 - half / 2))
