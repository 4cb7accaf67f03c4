"""LSSL against scipy, its three views against each other, its structure against dense algebra, and its traps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import Counter
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.krylov import krylov
from seqloom.mixers.ssm import lssl as home
from seqloom.mixers.ssm._modes import SHORT
from seqloom.mixers.ssm._quasiseparable import FIELDS, Discrete, Structure, longest_step, structure
from seqloom.mixers.ssm._transition import discretise, transition
from seqloom.mixers.ssm.lssl import LSSL
from seqloom.testing.mixers import check_mixer

signal = pytest.importorskip("scipy.signal")

RULES = (0.0, 0.5, 1.0)
BARE = {"activation": "none", "output": "none"}


def build(width=3, dtype=torch.float64, moved=0.0, **options):
    torch.manual_seed(1)
    mixer = LSSL(width, LSSL.Config(**{"state": 12, "learn": "channel", "steps": (1e-3, 2e-2), **BARE, **options}))
    with torch.no_grad():
        for name in mixer.timing:
            value = mixer.get_parameter(name)
            value.add_(moved * torch.randn_like(value))
    return mixer.to(dtype)


@torch.no_grad()
def by_scipy(mixer, u_TD):
    """Each channel in continuous time, discretised and simulated by scipy; its output is one step late."""
    system, columns = mixer.discrete(), []
    for d in range(mixer.width):
        own = d if mixer.config.learn == "channel" else 0
        A, B = system.structure.dense()[own].numpy(), system.structure.input_GN[own].numpy()[:, None]
        C = mixer.readout[0, d].double().numpy()
        D, step = np.zeros((len(C), 1)), float(system.step_D[d])
        A, B, *_ = signal.cont2discrete((A, B, C, D), step, method="gbt", alpha=mixer.config.alpha)
        skip = mixer.skip.view(mixer.width, -1)[d].double().numpy()[:, None]
        columns.append(signal.dlsim((A, B, C @ A, C @ B + skip, step), u_TD[:, d].double().numpy())[1])
    return torch.from_numpy(np.concatenate(columns, 1))


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize("alpha", RULES)
@pytest.mark.parametrize("memory", ["legs", "legt"])
def test_equals_scipy_whole_step_by_step_and_in_halves(memory, alpha):
    mixer, u_BTD = build(memory=memory, alpha=alpha, moved=0.01), torch.randn(1, 90, 3).double()
    want_TD = by_scipy(mixer, u_BTD[0])
    with torch.no_grad():
        assert_close(mixer(u_BTD)[0][0], want_TD, rtol=1e-9, atol=1e-9)
        assert_close(by_steps(mixer, u_BTD)[0][0], want_TD, rtol=1e-9, atol=1e-9)
        first_BTD, state = mixer(u_BTD[:, :41], mixer.initial_state(1))
        assert_close(first_BTD[0], want_TD[:41], rtol=1e-9, atol=1e-9)
        assert_close(mixer(u_BTD[:, 41:], state)[0][0], want_TD[41:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("learn", ["none", "shared", "channel"])
def test_several_readouts_of_one_state(learn):
    """Channel d of the inputs has the outputs d M to d M + M - 1, as the map behind it is told."""
    mixer, u_BTD = build(learn=learn, outputs=2, output="linear"), torch.randn(1, 50, 3).double()
    want_BTD = mixer.after(by_scipy(mixer, u_BTD[0])[None])
    assert_close(mixer(u_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)
    assert_close(by_steps(mixer, u_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)
    assert mixer.initial_state(1).h_BDX.shape == (1, 3, 12)


@pytest.mark.parametrize("alpha", RULES)
def test_the_kernel_is_the_krylov_matrix_read_out(alpha):
    mixer = build(alpha=alpha)
    with torch.no_grad():
        system = mixer.discrete()
        X_DNT = krylov(system.dense(), system.input()[..., None], 70)[..., 0]
        assert_close(mixer.kernel(70)[0], (mixer.readout[0] @ X_DNT).flatten(0, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [*RULES, 0.3])
@pytest.mark.parametrize("size", [2, 3, 64])
@pytest.mark.parametrize("memory", ["legs", "legt"])
def test_the_structure_is_the_dense_matrix(memory, size, alpha):
    made, (A_NN, B_N) = structure(memory, size), transition(memory, size)
    assert_close(made.dense()[0], A_NN, rtol=1e-12, atol=1e-12)
    steps_D = torch.tensor([1e-3, 0.1], dtype=torch.float64)
    want_DNN, want_DN = discretise(A_NN, B_N, steps_D, alpha)
    system = Discrete(made, steps_D, alpha)
    assert_close(system.dense(), want_DNN, rtol=1e-12, atol=1e-12)
    assert_close(system.input(), want_DN, rtol=1e-12, atol=1e-12)
    x_DNR = torch.randn(2, size, 3, dtype=torch.float64)
    assert_close(system.advance(x_DNR), want_DNN @ x_DNR, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("alpha", RULES)
def test_a_learned_structure_is_the_dense_matrix_of_its_definition(alpha):
    """Far from HiPPO, with P and c that pass through zero: nothing is divided by them."""
    torch.manual_seed(3)
    N = 9
    lower, upper = torch.randn(2, 2, N - 1, dtype=torch.float64)
    diagonal, c, left, right, B = torch.randn(5, 2, N, dtype=torch.float64)
    left[:, 2] = right[:, 4] = c[:, 5] = 0
    T = torch.diag_embed(lower, -1) + torch.diag_embed(diagonal) + torch.diag_embed(upper, 1)
    A = -left[..., None] * (torch.linalg.inv(T) + torch.diag_embed(c)) * right[:, None]
    made = Structure(lower, diagonal, upper, c, left, right, B)
    assert_close(made.dense(), A, rtol=1e-8, atol=1e-8)
    step = torch.tensor([0.05, 0.2], dtype=torch.float64)
    system, one = Discrete(made, step, alpha), torch.eye(N, dtype=torch.float64)
    left_DNN = one - alpha * step[:, None, None] * A
    want = torch.linalg.solve(left_DNN, one + (1 - alpha) * step[:, None, None] * A)
    assert_close(system.dense(), want, rtol=1e-8, atol=1e-8)
    assert_close(system.input(), torch.linalg.solve(left_DNN, step[:, None] * B), rtol=1e-8, atol=1e-8)


def test_a_rate_changes_the_step_and_nothing_else():
    mixer, fast = build(rate=1.0), build(rate=2.0)
    slow = build(rate=1.0)
    with torch.no_grad():
        slow.step_log += math.log(2)
    u_BTD = torch.randn(1, 40, 3).double()
    assert_close(fast(u_BTD)[0], slow(u_BTD)[0], rtol=1e-12, atol=1e-12)
    assert_close(mixer.resample(2.0)(u_BTD)[0], slow(u_BTD)[0], rtol=1e-12, atol=1e-12)


def test_half_of_the_samples_at_rate_two_are_half_of_the_outputs():
    """The continuous system: for a smooth signal the outputs at every other position stay the same."""
    mixer = build(memory="legs", steps=(2e-3, 5e-3))
    t = torch.arange(2000).double() / 2000
    u_BTD = torch.stack([(2 * math.pi * f * t).sin() for f in (1, 2, 3)], -1)[None]
    with torch.no_grad():
        whole, half = mixer(u_BTD)[0][:, 1::2], mixer.resample(2.0)(u_BTD[:, 1::2])[0]
        untold = mixer(u_BTD[:, 1::2])[0]
    scale = whole.std()
    assert float((half - whole)[:, 100:].abs().max() / scale) < 0.02
    assert float((untold - whole)[:, 100:].abs().max() / scale) > 0.5


@pytest.mark.parametrize("learn", ["none", "shared"])
def test_no_kernel_is_stale(learn):
    """The trap of the published code: a cached Krylov matrix that outlives the rate, the length or the parameters."""
    mixer, u_BTD = build(learn=learn), torch.randn(1, 40, 3).double()
    mixer.eval()
    first_BTD = mixer(u_BTD)[0]
    twin = mixer.resample(2.0)
    assert not torch.allclose(twin(u_BTD)[0], first_BTD)
    assert torch.equal(mixer(u_BTD)[0], first_BTD)
    assert_close(mixer(u_BTD[:, :20])[0], first_BTD[:, :20], rtol=1e-9, atol=1e-9)
    assert_close(mixer(torch.cat([u_BTD, u_BTD], 1))[0][:, :40], first_BTD, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        mixer.step_log += 1
    assert not torch.allclose(mixer(u_BTD)[0], first_BTD)
    assert set(mixer.state_dict()) == {name for name, _ in (*mixer.named_parameters(), *mixer.named_buffers())}


def test_a_resampled_mixer_shares_its_parameters():
    mixer = build()
    twin = mixer.resample(3.0)
    assert twin.config == replace(mixer.config, rate=3.0)
    assert all(a is b for a, b in zip(mixer.parameters(), twin.parameters(), strict=True))
    assert twin.resample(0.5).config.rate == 1.5


@pytest.mark.parametrize("length", [1, 2, SHORT, SHORT + 1, 61])
def test_few_and_many_columns_continue_alike(length):
    """Both sides of the switch between recurrence and convolution, with rows of different lengths."""
    mixer, x_BTD = build(outputs=2, output="linear"), torch.randn(3, 7 + length, 3).double()
    lengths_B = torch.tensor([0, (length + 1) // 2, length])
    with torch.no_grad():
        state = mixer(x_BTD[:, :7], mixer.initial_state(3))[1]
        got_BTD, after = mixer(x_BTD[:, 7:], state, layout=Layout(lengths_B=lengths_B))
        for row, count in enumerate(lengths_B.tolist()):
            want_BTD, want = by_steps(mixer, x_BTD[row : row + 1, : 7 + count])
            assert_close(got_BTD[row, :count], want_BTD[0, 7:], rtol=1e-9, atol=1e-9)
            assert_close(after.h_BDX[row], want.h_BDX[0], rtol=1e-9, atol=1e-9)


def test_the_convolution_with_a_state_keeps_the_contract(monkeypatch):
    """The contract's few columns take the recurrence; here they take the other way."""
    monkeypatch.setattr(home, "SHORT", 0)
    config = LSSL.Config(state=4, outputs=2)
    check_mixer(config, checks=["continuation", "padding", "packing", "rollback", "gradcheck"])


def test_float32_equals_scipy_in_float64_at_4096():
    """The kernel is made in float64; what is lost is the convolution's."""
    mixer, u_BTD = build(2, torch.float32, state=64), torch.randn(1, 4096, 2)
    want_TD = by_scipy(mixer, u_BTD[0])
    with torch.no_grad():
        assert (mixer(u_BTD)[0][0] - want_TD).abs().max() < 2e-6 * want_TD.abs().max()


def test_autocast_does_not_touch_the_kernel():
    mixer, u_BTD = build(dtype=torch.float32), torch.randn(1, 200, 3)
    want_BTD = mixer(u_BTD)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(u_BTD)[0], want_BTD)


def test_what_is_learned_is_what_the_option_says():
    own = {
        learn: LSSL(4, LSSL.Config(state=6, learn=learn, learning_rate=2e-4)) for learn in ("none", "shared", "channel")
    }
    assert own["none"].timing == ()
    assert dict(own["none"].named_buffers()).keys() == {"step_log"}
    for learn, copies in (("shared", 1), ("channel", 4)):
        (group,) = own[learn].param_groups()
        assert set(group.names) == {"step_log", *FIELDS}
        assert (group.lr, group.weight_decay) == (2e-4, 0.0)
        assert own[learn].diagonal.shape == (copies, 6)
    frozen = own["none"].double()
    assert_close(frozen.structure().dense()[0], transition("legs", 6)[0], rtol=1e-13, atol=1e-13)


def test_a_step_is_linear_in_the_state():
    """Tridiagonal solves, not N x N products: the only product is the readout."""
    mixer = build(state=64)
    with torch.no_grad(), Counter() as counter:
        mixer(torch.randn(1, 1, 3).double(), mixer.initial_state(1))
    assert counter.macs.total < 20 * 3 * 64


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


def test_the_longest_stable_step_is_where_powers_begin_to_grow():
    for memory, alpha in (("legs", 0.0), ("legs", 0.25), ("legt", 0.0)):
        limit = longest_step(memory, 16, alpha)
        for factor, stable in ((0.99, True), (1.02, False)):
            A_NN, _ = discretise(*transition(memory, 16), torch.tensor(limit * factor), alpha)
            radius = float(torch.linalg.eigvals(A_NN).abs().max())
            assert (radius <= 1 + 1e-9) is stable
    assert longest_step("legs", 16, 0.5) == math.inf


@pytest.mark.parametrize(
    "options",
    [
        {"state": 1},
        {"outputs": 0},
        {"alpha": 1.5},
        {"rate": 0.0},
        {"steps": (0.1, 0.01)},
        {"alpha": 0.0, "steps": (0.1, 0.5)},
        {"memory": "lagt"},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"state|steps|LSSL needs|tridiagonal"):
        LSSL(3, LSSL.Config(**options))
