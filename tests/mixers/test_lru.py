import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm.lru import LRU

signal = pytest.importorskip("scipy.signal")

BARE = {"activation": "none", "output": "none"}


def build(width=3, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return LRU(width, LRU.Config(**{"state": 7, **BARE, **options})).to(dtype)


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


@torch.no_grad()
def matrices(mixer, which=0):
    """A, B, C, D as real matrices of twice the modes, from the parameters by the paper's formulas in numpy."""
    values = (mixer.decay_log, mixer.phase_log, mixer.input, mixer.readout[which], mixer.skip)
    nu, theta, B, C, skip = (value.double().numpy() for value in values)
    gain = 1 if mixer.gain_log is None else np.exp(mixer.gain_log.double().numpy())[:, None]
    lam = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    A = np.block([[np.diag(lam.real), -np.diag(lam.imag)], [np.diag(lam.imag), np.diag(lam.real)]])
    return (
        A,
        np.concatenate([gain * B[:, 0], gain * B[:, 1]]),
        np.concatenate([C[..., 0], -C[..., 1]], 1),
        np.diag(skip),
    )


def by_scipy(mixer, u_TD):
    """scipy's system answers u_t at t + 1: ours is (A, B, C A, C B + D)."""
    A, B, C, D = matrices(mixer)
    return torch.from_numpy(signal.dlsim((A, B, C @ A, C @ B + D, 1.0), u_TD.double().numpy())[1])


@pytest.mark.parametrize(
    "options", [{}, {"normalise": False, "r_max": 0.9}, {"r_min": 0.99, "max_phase": 0.3}], ids=str
)
def test_equals_scipy_whole_and_step_by_step(options):
    mixer, u_BTD = build(**options), torch.randn(1, 70, 3).double()
    want_TD = by_scipy(mixer, u_BTD[0])
    with torch.no_grad():
        assert_close(mixer(u_BTD)[0][0], want_TD, rtol=1e-9, atol=1e-9)
        assert_close(by_steps(mixer, u_BTD)[0][0], want_TD, rtol=1e-9, atol=1e-9)
        begin_BTD, state = mixer(u_BTD[:, :29], mixer.initial_state(1))
        assert_close(begin_BTD[0], want_TD[:29], rtol=1e-9, atol=1e-9)
        assert_close(mixer(u_BTD[:, 29:], state)[0][0], want_TD[29:], rtol=1e-9, atol=1e-9)


def test_float32_equals_scipy_in_float64_at_4096():
    """A in float32 is off by 6e-8 a step, and 1000 steps are remembered."""
    mixer, u_BTD = build(4, torch.float32, state=32, r_min=0.9, r_max=0.999), torch.randn(1, 4096, 4)
    want_TD = by_scipy(mixer, u_BTD[0])
    with torch.no_grad():
        error = (mixer(u_BTD)[0][0] - want_TD).abs().max() / want_TD.abs().max()
    assert error < 2e-5


@pytest.mark.parametrize("causal", [True, False])
def test_the_kernel_is_the_impulse_response_and_lag_zero_counts_once(causal):
    mixer, u_BTD = build(causal=causal), torch.randn(2, 23, 3).double()
    with torch.no_grad():
        k_RDDT = mixer.kernel(23)
        want_BTD = mixer.skip * u_BTD
        for t in range(23):
            for s in range(23):
                if s <= t or not causal:
                    tap_DD = k_RDDT[0, :, :, t - s] if s <= t else k_RDDT[1, :, :, s - t - 1]
                    want_BTD[:, t] += u_BTD[:, s] @ tap_DD.T
        assert_close(mixer(u_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
        for which in range(len(k_RDDT)):
            A, B, C, _ = matrices(mixer, which)
            by_powers = np.stack([C @ np.linalg.matrix_power(A, lag) @ B for lag in range(23)], 2)
            assert_close(k_RDDT[which], torch.from_numpy(by_powers), rtol=1e-10, atol=1e-10)


def test_looking_ahead_ends_at_each_rows_last_input():
    mixer, x_BTD = build(causal=False), torch.randn(3, 9, 3).double()
    y_BTD, _ = mixer(x_BTD, layout=Layout(lengths_B=torch.tensor([1, 5, 9])))
    for row, length in enumerate((1, 5, 9)):
        assert_close(y_BTD[row : row + 1, :length], mixer(x_BTD[row : row + 1, :length])[0])
    with pytest.raises(ConfigError, match="state"):
        mixer.initial_state(1)


def test_modes_start_on_the_ring():
    mixer = LRU(2, LRU.Config(state=20000, r_min=0.6, r_max=0.9, max_phase=1.0))
    a_N = mixer._log_a().detach().exp()
    assert float(a_N.abs().min()) == pytest.approx(0.6, abs=1e-3)
    assert float(a_N.abs().max()) == pytest.approx(0.9, abs=1e-3)
    assert float(a_N.abs().square().mean()) == pytest.approx((0.36 + 0.81) / 2, rel=0.01)  # uniform by area
    assert float(a_N.angle().min()) >= 0
    assert float(a_N.angle().max()) <= 1.0
    assert float(a_N.angle().mean()) == pytest.approx(0.5, rel=0.02)
    assert_close(mixer.gain_log.exp(), (1 - a_N.abs().square()).sqrt().float())
    whole = LRU(2, LRU.Config(state=20000))
    assert all(torch.isfinite(value).all() for value in whole.parameters())


def test_initial_maps_have_the_papers_variances():
    mixer = LRU(64, LRU.Config(state=256))
    assert float(mixer.input.detach().var()) == pytest.approx(1 / (2 * 64), rel=0.05)
    assert float(mixer.readout.detach().var()) == pytest.approx(1 / 256, rel=0.05)


def modes_of(mixer, x_BTD):
    with torch.no_grad():
        return torch.view_as_complex(mixer(x_BTD, mixer.initial_state(len(x_BTD)))[1].h_BN2)


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 0.9), (0.9, 0.99), (0.99, 0.999)])
def test_white_inputs_give_modes_of_unit_power(r_min, r_max):
    """E |h|^2 = 1: of 256 rows and 128 modes the mean of |h|^2 is good to a few per cent."""
    mixer = build(64, torch.float32, state=128, r_min=r_min, r_max=r_max)
    h_BN = modes_of(mixer, torch.randn(64, 3000, 64))
    assert float(h_BN.abs().square().mean()) == pytest.approx(1, rel=0.1)


@torch.no_grad()
def spread(r_min, r_max, normalise):
    """Standard deviation of the outputs over the last of 40000 steps, four times the slowest mode's memory."""
    mixer = build(16, torch.float32, state=32, r_min=r_min, r_max=r_max, normalise=normalise)
    mixer.skip.zero_()
    return float(mixer(torch.randn(1, 40000, 16))[0][:, -10000:].std())


def test_the_signal_keeps_its_size_however_long_the_memory():
    """The paper's reason for normalising: rings of short and of long memory answer alike, without it 18 to 1."""
    rings = ((0.8, 0.9), (0.999, 0.9999))
    short, long = (spread(*ring, True) for ring in rings)
    assert long / short == pytest.approx(1, rel=0.2)
    short, long = (spread(*ring, False) for ring in rings)
    assert long / short > 5


def test_memory_of_training_is_a_few_states_a_position():
    mixer = build(8, torch.float32, state=32)
    x_BTD = torch.randn(1, 1024, 8).requires_grad_()
    assert saved_bytes(lambda: mixer(x_BTD)[0]) < 2.5 * 1024 * 32 * 8


def test_parameters_are_real_pairs_in_their_groups():
    mixer = LRU(4, LRU.Config(learning_rate=2e-4))
    assert not any(value.is_complex() for value in mixer.parameters())
    (group,) = mixer.param_groups()
    assert set(group.names) == {"decay_log", "phase_log", "gain_log"}
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)
    (group,) = LRU(4, LRU.Config(normalise=False)).param_groups()
    assert set(group.names) == {"decay_log", "phase_log"}


def test_autocast_does_not_touch_the_recurrence():
    """The maps become bfloat16; a state that remembers 10000 steps does not."""
    mixer = build(4, torch.float32, r_min=0.9999, r_max=0.9999, max_phase=1e-6)
    x_BTD = torch.ones(1, 5000, 4)
    want_BN = modes_of(mixer, x_BTD)
    with torch.autocast("cpu", torch.bfloat16):
        got_BN = modes_of(mixer, x_BTD)
    assert got_BN.dtype == want_BN.dtype
    assert_close(got_BN, want_BN, rtol=2e-2, atol=2e-2 * float(want_BN.abs().max()))


def test_what_follows_the_recurrence():
    u_BTD = torch.randn(2, 9, 3).double()
    mixer, bare = build(activation="gelu", output="glu"), build()
    bare.load_state_dict({name: value for name, value in mixer.state_dict().items() if "after" not in name})
    assert_close(mixer(u_BTD)[0], mixer.after(bare(u_BTD)[0]))
    assert not LRU.Config().traits().lti
    assert LRU.Config(activation="none", output="linear").traits().lti


@pytest.mark.parametrize(
    "options",
    [
        {"state": 0},
        {"r_min": 0.9, "r_max": 0.8},
        {"r_max": 1.1},
        {"r_min": -0.1},
        {"max_phase": 0.0},
        {"max_phase": 7.0},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"state|r_min|max_phase"):
        LRU(3, replace(LRU.Config(), **options))


def test_the_phase_starts_within_a_tenth_of_a_half_turn_where_asked():
    mixer = LRU(2, LRU.Config(state=1000, max_phase=math.pi / 10))
    assert float(mixer.phase_log.detach().exp().max()) <= math.pi / 10 + 1e-6
