"""The gated loops against torch's LSTM and GRU, the sLSTM's equations, and their own laws: chunks, starts, pads."""

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.gated_loop import GATES, NEVER, STATES, gated_loop

BACKENDS = ["reference", "numba_cpu", "triton_cuda"]
FAST = BACKENDS[1:]
CELLS = list(GATES)


def draw(cell, B=3, T=7, H=1, K=5, dtype=torch.float64):
    G = GATES[cell]
    state_SBHK = torch.randn(STATES[cell], B, H, K, dtype=dtype)
    weight_GHJK = torch.randn(G, H, K, K, dtype=dtype) * K**-0.5
    return torch.randn(B, T, G, H, K, dtype=dtype), weight_GHJK, state_SBHK, torch.randn(G, H, K, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("cell", "kind"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
def test_equals_torch_forwards_and_backwards(cell, kind, backend):
    pre, weight, state, bias = (value.requires_grad_() for value in draw(cell, K=19))
    G, K = GATES[cell], 19
    module = kind(G * K, K, batch_first=True).double()
    names = dict(module.named_parameters())
    with torch.no_grad():
        names["weight_ih_l0"].copy_(torch.eye(G * K))  # the inputs are the gates' inputs themselves
        names["bias_ih_l0"].zero_()
        names["weight_hh_l0"].copy_(weight[:, 0].flatten(0, 1))
        names["bias_hh_l0"].copy_(bias.flatten())
    first = tuple(value[None, :, 0] for value in state) if cell == "lstm" else state[:1, :, 0]
    want, _ = module(pre.flatten(2), first)
    with use_backend(backend):
        states = gated_loop(pre, weight, state, bias, None, cell)
    assert_close(states[0, :, :, 0], want, rtol=1e-10, atol=1e-10)
    adjoint = torch.randn_like(want)
    with use_backend(backend):
        got = torch.autograd.grad((states[0, :, :, 0] * adjoint).sum(), [pre, weight, state, bias])
    own = [pre, names["weight_hh_l0"], state, names["bias_hh_l0"]]
    theirs = torch.autograd.grad((want * adjoint).sum(), own)
    for mine, other in zip(got, theirs, strict=True):
        assert_close(mine.flatten(), other.flatten(), rtol=1e-9, atol=1e-9)


def slstm(pre, weight, bias, cell):
    """c and n as the paper writes them, without a stabiliser, from an empty cell."""
    (B, T, _, H, K), outputs = pre.shape, []
    h, c, n = (pre.new_zeros(B, H, K) for _ in range(3))
    for t in range(T):
        i, f, z, o = (pre[:, t] + torch.einsum("ghjk,bhk->bghj", weight, h) + bias).unbind(1)
        keep, let = (f.exp() if cell == "slstm_exp" else f.sigmoid()), i.exp()
        c, n = keep * c + let * z.tanh(), keep * n + let
        h = o.sigmoid() * c / n
        outputs.append(torch.stack([h, c / n, n.log()]))
    return torch.stack(outputs, 2)


def empty(state):
    return torch.stack([torch.zeros_like(state[0]), torch.zeros_like(state[0]), torch.full_like(state[0], NEVER)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", ["slstm", "slstm_exp"])
def test_equals_the_equations_of_the_slstm(cell, backend):
    pre, weight, state, bias = draw(cell, H=2)
    leaves = [value.requires_grad_() for value in (pre, weight, bias)]
    with use_backend(backend):
        states = gated_loop(pre, weight, empty(state), bias, None, cell)
        got = torch.autograd.grad(states.square().sum(), leaves)
    want = slstm(pre, weight, bias, cell)
    assert_close(states, want, rtol=1e-10, atol=1e-10)
    assert_close(got, torch.autograd.grad(want.square().sum(), leaves), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("cell", CELLS)
def test_chunks_join(cell, backend):
    pre, weight, state, bias = draw(cell, B=5, T=11, H=2, K=17)
    with use_backend(backend):
        whole = gated_loop(pre, weight, state, bias, None, cell)
        first = gated_loop(pre[:, :4], weight, state, bias, None, cell)
        second = gated_loop(pre[:, 4:], weight, first[:, :, -1], bias, None, cell)
    assert_close(torch.cat([first, second], 2), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_start_forgets_and_a_pad_holds(cell, backend):
    pre, weight, state, bias = draw(cell, B=1, T=9)
    moves_BT = torch.tensor([[0, 0, 0, 1, 0, 0, 0, -1, -1]])
    with use_backend(backend):
        states = gated_loop(pre, weight, state, bias, moves_BT, cell)
    fresh = empty(state) if cell.startswith("slstm") else torch.zeros_like(state)
    alone = gated_loop(pre[:, 3:7], weight, fresh, bias, None, cell)
    assert_close(states[:, :, 3:7], alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(states[:, :, 8], states[:, :, 6])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("cell", CELLS)
def test_gates_at_sixty_stay_finite(cell, backend):
    given = [value.requires_grad_() for value in draw(cell, T=20, dtype=torch.float32)]
    pre, weight, state, bias = given
    with use_backend(backend):
        states = gated_loop(60 * pre.sign(), weight, state, bias, None, cell)
        grads = torch.autograd.grad(states.sum(), [weight, state, bias])
    assert all(value.isfinite().all() for value in (states, *grads))


def test_no_column_leaves_nothing():
    pre, weight, state, bias = draw("lstm", T=0)
    assert gated_loop(pre, weight, state, bias, None, "lstm").shape == (2, 3, 0, 1, 5)


def test_half_precision_is_computed_in_float32():
    pre, weight, state, bias = draw("slstm", dtype=torch.float32)
    half = [value.bfloat16() for value in (pre, weight, bias)]
    states = gated_loop(half[0], half[1], state, half[2], None, "slstm")
    assert states.dtype == torch.float32
    want = gated_loop(half[0].float(), half[1].float(), state, half[2].float(), None, "slstm")
    assert_close(states, want, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_named():
    pre, weight, state, bias = draw("lstm")
    with pytest.raises(ConfigError, match="weight of a lstm"):
        gated_loop(pre, weight[:3], state, bias, None, "lstm")
    with pytest.raises(ConfigError, match="rnn"):
        gated_loop(pre, weight, state, bias, None, "rnn")
