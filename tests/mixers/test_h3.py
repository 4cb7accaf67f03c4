import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm.h3 import H3


def build(width=4, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return H3(width, H3.Config(**{"shift": 5, "state": 6, **options})).to(dtype)


@torch.no_grad()
def by_loops(mixer, x_TD):
    """One row by the paper's two systems as matrices and vectors, head by head, in numpy."""
    K, S, bank = mixer.config.head_width, mixer.config.shift, mixer.bank
    q, k, v = mixer.qkv(x_TD).numpy().reshape(len(x_TD), 3, mixer.heads, K).swapaxes(0, 1)
    taps, key_skip = mixer.taps.numpy().reshape(mixer.heads, K, S), mixer.key_skip.numpy().reshape(mixer.heads, K)
    down, first = np.eye(S, k=-1), np.eye(S)[0]
    A = -bank.decay_log.double().exp().numpy() + 1j * bank.frequency.double().numpy()
    dt = bank.step_log.double().exp().numpy()
    C = (bank.readout[0] * torch.tensor([1.0, 1.0j])).sum(-1).numpy()
    y = np.zeros(v.shape)
    for h in range(mixer.heads):
        a = np.exp(dt[h] * A[h])
        b = (a - 1) / A[h]
        shifts, memory = np.zeros((K, S)), np.zeros((K, K, len(a)), dtype=complex)
        for t in range(len(x_TD)):
            shifts = shifts @ down.T + np.outer(k[t, h], first)
            held = (taps[h] * shifts).sum(1) + key_skip[h] * k[t, h]
            product = np.outer(held, v[t, h])
            memory = memory * a + product[..., None] * b
            read = 2 * (memory * C[h]).sum(-1).real + mixer.skip[h].item() * product
            y[t, h] = q[t, h] @ read
    return mixer.output(torch.from_numpy(y.reshape(len(x_TD), -1)))


@pytest.mark.parametrize("options", [{}, {"head_width": 2}, {"head_width": 4, "init": "lin"}, {"shift": 1}], ids=str)
def test_equals_both_systems_by_loops(options):
    mixer, x_BTD = build(**options), torch.randn(2, 45, 4).double()
    want_BTD = torch.stack([by_loops(mixer, x_TD) for x_TD in x_BTD])
    with torch.no_grad():
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)
        state, pieces = mixer.initial_state(2), []
        for piece_BTD in x_BTD.split([3, 1, 40, 1], 1):  # fewer columns than taps, one, many, one
            y_BTD, state = mixer(piece_BTD, state)
            pieces.append(y_BTD)
    assert_close(torch.cat(pieces, 1), want_BTD, rtol=1e-9, atol=1e-9)


def test_the_state_is_the_last_keys_and_a_memory_of_each_product():
    mixer, x_BTD = build(head_width=2), torch.randn(2, 9, 4).double()
    with torch.no_grad():
        state = mixer(x_BTD, mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([9, 2])))[1]
        keys_BTD = mixer.qkv(x_BTD).chunk(3, -1)[1]
    assert_close(state.keys_BSD[0], keys_BTD[0, 5:])
    assert_close(state.keys_BSD[1], torch.cat([torch.zeros(2, 4).double(), keys_BTD[1, :2]]))
    assert state.h_BXHN2.shape == (2, 4, 2, 3, 2)
    assert state.nbytes == 2 * mixer.state_bytes(9)


def test_it_recalls_the_token_after_an_earlier_one():
    """The paper's construction by hand: k~ holds the token before, v the token now, q the token asked for.

    Keys and values are one-hot, a shift of one tap behind, a memory that keeps everything: the read is the sum of
    what followed the token in the past.
    """
    mixer = build(8, head_width=8, shift=2, state=2, init="real", steps=(1e-6, 1e-6))
    with torch.no_grad():
        for value in (mixer.qkv.weight, mixer.qkv.bias, mixer.taps, mixer.key_skip, mixer.skip, mixer.output.bias):
            value.zero_()
        one = torch.eye(8).double()
        mixer.qkv.weight.copy_(torch.cat([one, one, one]))
        mixer.taps[:, 1] = 1  # the key one position back
        mixer.output.weight.copy_(one)
        mixer.bank.readout.copy_(torch.tensor([0.5e6, 0.0]))  # b is the step
        said = torch.tensor([0, 2, 1, 3, 3, 1, 0])  # after 0 came 2, after 1 came 3
        y_TD = mixer(torch.nn.functional.one_hot(said, 8).double()[None])[0][0]
    assert y_TD[6].argmax() == 2
    assert y_TD[5].argmax() == 3
    assert_close(y_TD[2], torch.zeros(8).double())  # 1 was not seen before


def test_heads_share_the_kernel_of_their_products():
    assert H3(8, H3.Config(head_width=4)).bank.step_log.shape == (2,)
    assert H3(8).bank.step_log.shape == (8,)
    assert H3(8).heads == 8


def test_parameters_start_at_their_variances_and_in_their_group():
    mixer = H3(512, H3.Config(shift=9))
    for value in (mixer.taps * 3, mixer.key_skip, mixer.skip):
        assert float(value.detach().std()) == pytest.approx(1, rel=0.1)
    (group,) = H3(4, H3.Config(learning_rate=2e-4)).param_groups()
    assert set(group.names) == {"bank.step_log", "bank.decay_log", "bank.frequency"}
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)
    assert not any(value.is_complex() for value in mixer.parameters())


def test_memories_stay_float32_under_autocast():
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(1, 60, 4)
    want_BTD = mixer(x_BTD)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y_BTD, state = mixer(x_BTD, mixer.initial_state(1))
    assert (state.keys_BSD.dtype, state.h_BXHN2.dtype) == (torch.float32, torch.float32)
    error = (y_BTD.float() - want_BTD).detach().norm() / want_BTD.detach().norm()
    assert float(error) < 0.02  # a few roundings of 2^-8


@pytest.mark.parametrize("options", [{"head_width": 3}, {"head_width": 0}, {"shift": 0}, {"state": 5}], ids=str)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"head_width|shift|state"):
        H3(4, H3.Config(**options))
