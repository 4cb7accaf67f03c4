import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import Counter, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm import _dplr
from seqloom.mixers.ssm._transition import normal_low_rank, transition
from seqloom.mixers.ssm.s4 import LEAST_DECAY, S4
from seqloom.testing.mixers import check_mixer

signal = pytest.importorskip("scipy.signal")

MEMORIES = ("legs", "legt", "fourier")
BARE = {"activation": "none", "output": "none"}
LENGTHS = (1, 2, 7, 64, 97, 256)


def build(width=3, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return S4(width, S4.Config(**{"state": 16, **BARE, **options})).to(dtype)


def whole(mixer, d):
    """Channel d with both halves of every pair: step, A (N, N), B and one C a readout, complex, by numpy alone."""
    at = d % len(mixer.frequency)
    P, B, C = (x.detach().double().numpy() for x in (mixer.low_rank[:, at], mixer.input[at], mixer.readout[:, d]))
    P, B, C = (x[..., 0] + 1j * x[..., 1] for x in (P, B, C))
    decay, frequency = (x[at].detach().double().numpy() for x in (mixer.decay_log, mixer.frequency))
    L, P, B, C = (np.concatenate([x, x.conj()], -1) for x in (-np.exp(decay) + 1j * frequency, P, B, C))
    return math.exp(mixer.step_log[d].item()), np.diag(L) - P.T @ P.conj(), B, C


def bilinear(step, A, B):
    left = np.eye(len(A)) - step / 2 * A
    return np.linalg.solve(left, np.eye(len(A)) + step / 2 * A), step * np.linalg.solve(left, B)


def krylov(mixer, length, shorten=None):
    """The kernel (R, D, L) by powers of the dense matrix on B, one product after another."""
    rows = []
    for d in range(mixer.width):
        step, A, B, C = whole(mixer, d)
        A, x = bilinear(step, A, B)
        if shorten is not None:
            C = C @ np.linalg.inv(np.eye(len(A)) - np.linalg.matrix_power(A, shorten))
        taps = []
        for _ in range(length):
            taps.append((C @ x).real)
            x = A @ x
        rows.append(taps)
    return torch.from_numpy(np.array(rows).transpose(2, 0, 1))


def relative(got, want):
    return float((got.detach().double() - want).abs().max() / want.abs().max())


def learn(mixer, count=3):
    """Some steps of Adam with a large learning rate on noise."""
    optimiser, x_BTD = torch.optim.Adam(mixer.parameters(), lr=0.05), torch.randn(2, 40, mixer.width)
    for _ in range(count):
        optimiser.zero_grad()
        (mixer(x_BTD.to(mixer.skip))[0] - x_BTD.roll(3, 1)).square().mean().backward()
        optimiser.step()
    return mixer


@pytest.mark.parametrize("state", [2, 64])
@pytest.mark.parametrize("store", ["c", "ctilde"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_kernel_equals_powers_of_the_dense_matrix(memory, store, state):
    mixer = build(memory=memory, state=state).stored(store, 97)
    want_RDL = krylov(mixer, 256, 97 if store == "ctilde" else None)
    for length in LENGTHS:
        assert relative(mixer.kernel(length), want_RDL[..., :length]) < 1e-8
        single = S4(3, mixer.config)
        single.load_state_dict(mixer.state_dict())
        assert relative(single.kernel(length), want_RDL[..., :length]) < 1e-4


@pytest.mark.parametrize("store", ["c", "ctilde"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_kernel_still_does_after_some_learning(memory, store):
    mixer = learn(build(memory=memory, state=64, store=store, length=50))
    want_RDL = krylov(mixer, 101, 50 if store == "ctilde" else None)
    assert relative(mixer.kernel(101), want_RDL) < 1e-8
    mixer.float()
    want_RDL = krylov(mixer, 101, 50 if store == "ctilde" else None)
    assert relative(mixer.kernel(101), want_RDL) < 1e-4


@pytest.mark.parametrize("memory", MEMORIES)
def test_starts_as_the_memory_itself(memory):
    """(A, B) of the polynomials, through scipy: the basis change and the low rank cancel out.

    scipy's system answers u_t at t + 1 (and its bilinear rule changes C too): ours is (A, B, C A, C B + D).
    """
    mixer, u_BTD = build(memory=memory, state=16), torch.randn(1, 60, 3).double()
    start, (A, B) = normal_low_rank(memory, 16), (m.numpy() for m in transition(memory, 16))
    floor = 0.0 if memory == "legs" else LEAST_DECAY
    columns = []
    for d in range(3):
        C = 2 * (torch.view_as_complex(mixer.readout[0, d].detach()) @ start.basis_NH.conj().T).real.numpy()[None]
        step = math.exp(mixer.step_log[d].item())
        zero = np.zeros((1, 1))
        Ad, Bd, *_ = signal.cont2discrete((A - floor * np.eye(16), B[:, None], C, zero), step, method="bilinear")
        system = (Ad, Bd, C @ Ad, C @ Bd + mixer.skip[d].item(), step)
        columns.append(signal.dlsim(system, u_BTD[0, :, d].numpy())[1][:, 0])
    # parameters are float32 numbers, the memory's are not
    assert relative(mixer(u_BTD)[0][0], torch.from_numpy(np.stack(columns, 1))) < 1e-5


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize("store", ["c", "ctilde"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_convolution_recurrence_and_chunks_agree(memory, store, monkeypatch):
    mixer, u_BTD = build(memory=memory, store=store, length=30, state=64), torch.randn(2, 150, 3).double()
    with torch.no_grad():
        want_BTD = mixer(u_BTD)[0]
        step_BTD, last = by_steps(mixer, u_BTD[:, :50])
        assert_close(step_BTD, want_BTD[:, :50], rtol=1e-8, atol=1e-8)
        for short in (_dplr.SHORT, 0, 1000):  # both ways that lead beyond a state
            monkeypatch.setattr(_dplr, "SHORT", short)
            y_BTD, state = mixer(u_BTD[:, 50:], last)
            assert_close(y_BTD, want_BTD[:, 50:], rtol=1e-8, atol=1e-8)
            every_BTD, after = mixer(u_BTD, mixer.initial_state(2))
            assert_close(every_BTD, want_BTD, rtol=1e-8, atol=1e-8)
            assert_close(state.h_BDX, after.h_BDX, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("short", [0, 1000])
def test_every_row_keeps_the_state_after_its_own_last_input(short, monkeypatch):
    monkeypatch.setattr(_dplr, "SHORT", short)
    mixer, x_BTD = build(), torch.randn(5, 7 + 70, 3).double()
    lengths_B = torch.tensor([0, 31, 32, 33, 70])
    with torch.no_grad():
        state = mixer(x_BTD[:, :7], mixer.initial_state(5))[1]
        got_BTD, after = mixer(x_BTD[:, 7:], state, layout=Layout(lengths_B=lengths_B))
        for row, count in enumerate(lengths_B.tolist()):
            want_BTD, want = by_steps(mixer, x_BTD[row : row + 1, : 7 + count])
            assert_close(got_BTD[row, :count], want_BTD[0, 7:], rtol=1e-9, atol=1e-9)
            assert_close(after.h_BDX[row], want.h_BDX[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", S4.grid()[:2], ids=lambda config: config.memory)
def test_the_blocks_keep_the_contract(config, monkeypatch):
    """The contract's few columns take the recurrence; here they take the other way."""
    monkeypatch.setattr(_dplr, "SHORT", 0)
    config = replace(config, state=8)
    check_mixer(config, checks=["continuation", "padding", "packing", "rollback", "gradcheck"])


def test_trap_the_pair_is_counted_twice_and_the_readout_is_not_conjugated():
    """Without low rank and with one mode: k_l = 2 Re(C a^l b), a and b by hand."""
    mixer = build(1, state=2)
    with torch.no_grad():
        mixer.low_rank.zero_()
        mixer.readout.copy_(torch.tensor([0.3, -0.8], dtype=torch.float64))
        mixer.input.copy_(torch.tensor([0.5, 0.7], dtype=torch.float64))
    step, L = math.exp(mixer.step_log.item()), complex(-mixer.decay_log.detach().exp(), mixer.frequency.detach())
    a, b = (1 + step * L / 2) / (1 - step * L / 2), step * (0.5 + 0.7j) / (1 - step * L / 2)
    want = [2 * ((0.3 - 0.8j) * a**lag * b).real for lag in range(9)]
    assert_close(mixer.kernel(9)[0, 0].detach(), torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_trap_nothing_wraps_around():
    """A transform without padding would bring the last input back to the first output."""
    mixer, u_BTD = build(steps=(1e-3, 1e-3)), torch.zeros(1, 64, 3).double()
    u_BTD[:, -1] = 1e4
    assert float(mixer(u_BTD)[0][:, :-1].detach().abs().max()) < 1e-9


def test_trap_no_decay_ever_turns_positive():
    mixer = build(learning_rate=1.0)
    optimiser = torch.optim.SGD(mixer.parameters(), lr=1.0)
    for _ in range(5):
        optimiser.zero_grad()
        (-mixer(torch.randn(1, 30, 3).double())[0].square().sum()).backward()  # whatever makes it ring louder
        torch.nn.utils.clip_grad_value_(mixer.parameters(), 1.0)
        optimiser.step()
    eigenvalue_DN = mixer.system().eigenvalue_DN
    assert bool((eigenvalue_DN.real < 0).all())
    assert all(np.abs(np.linalg.eigvals(bilinear(*whole(mixer, d)[:3])[0])).max() < 1 for d in range(3))
    assert torch.isfinite(mixer.kernel(100)).all()


def test_trap_what_sets_time_scales_learns_slowly_and_does_not_decay():
    mixer = S4(4, S4.Config(learning_rate=2e-4))
    (group,) = mixer.param_groups()
    assert set(group.names) == {"step_log", "decay_log", "frequency", "low_rank", "input"}
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)
    assert not any(value.is_complex() for value in mixer.parameters())
    steps_D = S4(4000, S4.Config(state=2)).step_log.detach().exp()
    assert float(steps_D.min()) >= 0.999e-3
    assert float(steps_D.max()) <= 1.001e-1
    assert float(steps_D.median()) == pytest.approx(1e-2, rel=0.1)  # log-uniform


@pytest.mark.parametrize("memory", MEMORIES)
def test_trap_float32_at_16385(memory):
    """1e-4 is what float32 arithmetic throughout would give; sums in float64 keep it three digits better."""
    mixer = build(1, torch.float32, memory=memory, state=64, steps=(1e-3, 1e-3))
    assert relative(mixer.kernel(16385), krylov(mixer, 16385)) < 1e-6


@pytest.mark.parametrize("length", [1, 2, 5, 8, 97, 128])
def test_trap_odd_lengths_and_the_point_at_minus_one(length):
    """C~'s own circle: for even lengths one point is w = -1, where 2 / (1 + w) is infinite."""
    mixer = build(store="ctilde", length=length, state=64)
    want_RDL = krylov(mixer, length, length)
    assert relative(mixer.kernel(length), want_RDL) < 1e-8
    if length % 2 == 0:
        system = mixer.system()
        limit_RD = system.step_D * (system.readout_RDN * system.input_DN).real.sum(-1)
        alternating_RD = (want_RDL * (-1.0) ** torch.arange(length)).sum(-1)
        assert_close(limit_RD.detach(), alternating_RD, rtol=1e-8, atol=1e-9)


def test_trap_a_tied_readout_serves_any_length():
    free = build(memory="legt", state=32)
    tied = free.stored("ctilde", 24)
    for length in (3, 24, 25, 48, 49, 200):
        assert relative(tied.kernel(length), free.kernel(length).detach()) < 1e-9
    again = tied.stored("c")
    assert_close(again.readout, free.readout, rtol=1e-9, atol=1e-9)
    learn(tied)
    assert relative(tied.kernel(200), tied.stored("c").kernel(200).detach()) < 1e-8


def test_systems_are_shared_in_turn():
    mixer = build(5, copies=2)
    assert mixer.frequency.shape == (2, 8)
    assert mixer.low_rank.shape == (1, 2, 8, 2)
    assert mixer.readout.shape == (1, 5, 8, 2)
    with torch.no_grad():
        mixer.frequency[1] *= 1.5
    assert relative(mixer.kernel(40), krylov(mixer, 40)) < 1e-8


def test_bidirectional_counts_lag_zero_once():
    mixer, u_BTD = build(causal=False), torch.randn(2, 23, 3).double()
    with torch.no_grad():
        past_DL, future_DL = mixer.kernel(23)
        want_BTD = mixer.skip * u_BTD
        for t in range(23):
            for s in range(23):
                tap_D = past_DL[:, t - s] if s <= t else future_DL[:, s - t - 1]
                want_BTD[:, t] += tap_D * u_BTD[:, s]
        assert_close(mixer(u_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)
        assert relative(mixer.kernel(23), krylov(mixer, 23)) < 1e-8
    with pytest.raises(ConfigError, match="state"):
        mixer.initial_state(1)


def test_a_step_is_linear_in_the_state_size():
    work = []
    for state in (32, 64):
        mixer = build(state=state)
        with torch.no_grad(), Counter() as counter:
            mixer(torch.randn(1, 1, 3).double(), mixer.initial_state(1))
        work.append(counter.macs.elementwise)
        assert counter.macs.total < 20  # the inverse of a 1 x 1 matrix a channel
    assert work[1] < 2.1 * work[0]


def test_the_eigenbasis_is_no_way_to_step():
    """Why the step is Woodbury's: diagonalising the A-bar of legs or legt gives back anything but A-bar."""
    for memory in ("legs", "legt"):
        A = bilinear(0.01, *(m.numpy() for m in transition(memory, 64)))[0]
        values, basis = np.linalg.eig(A)
        assert np.linalg.cond(basis) > 1e14
        assert np.abs((basis * values) @ np.linalg.inv(basis) - A).max() > 1e-3


def test_memory_grows_with_the_length_and_not_with_length_times_state():
    mixer = build(4, torch.float32, state=64)
    u_BTD = torch.randn(1, 4096, 4).requires_grad_()
    # nothing of size (32 modes, 2049 points): some thirty complex numbers of float64 a point, rows and pivots
    assert saved_bytes(lambda: mixer(u_BTD)[0]) < 0.5 * 4 * 32 * 2049 * 16


def test_autocast_does_not_touch_the_kernel():
    mixer, u_BTD = build(dtype=torch.float32), torch.randn(1, 200, 3)
    want_BTD, k_RDL = mixer(u_BTD)[0], mixer.kernel(200)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(u_BTD)[0], want_BTD)
        assert torch.equal(mixer.kernel(200), k_RDL)


def test_initial_outputs_have_the_size_that_the_kernel_implies():
    mixer = S4(256, S4.Config(**BARE))
    with torch.no_grad():
        energy = float(mixer.kernel(4096).square().sum(-1).mean())
        spread = float(mixer(torch.randn(4, 4096, 256))[0][:, -1024:].std())
    assert spread == pytest.approx(math.sqrt(1 + energy), rel=0.1)


@pytest.mark.parametrize(
    "options",
    [{"state": 7}, {"state": 0}, {"steps": (0.1, 0.01)}, {"copies": -1}, {"store": "ctilde", "length": 0}],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"state|steps|copies"):
        S4(3, S4.Config(**options))
