from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv1d, pad, silu
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.attention import _decayed
from seqloom.mixers.attention.gla import GLA


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = GLA(width, GLA.Config(**{"heads": 2} | options)).to(dtype)
    torch.nn.init.normal_(mixer.norm.weight)
    return mixer


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def parts(mixer, x_BTD):
    """Queries, keys, values and logarithms of decays, (B, T, H, ...)."""
    heads = (mixer.config.heads, -1)
    qkv_BTE = x_BTD @ mixer.qkv.weight.T
    if mixer.conv is not None:
        taps_E1W = mixer.conv.weight[:, None]
        past_BET = pad(qkv_BTE.mT, (taps_E1W.shape[2] - 1, 0))
        qkv_BTE = silu(conv1d(past_BET, taps_E1W, groups=len(taps_E1W)).mT)
    logits_BTK = x_BTD @ (mixer.decay.weight @ mixer.low.weight).T + mixer.decay.bias
    decay_BTK = torch.sigmoid(logits_BTK) ** (1 / mixer.config.temperature)
    split = qkv_BTE.split([mixer.keys, mixer.keys, mixer.values], -1)
    return [x.unflatten(-1, heads) for x in (*split, decay_BTK.log())]


def finish(mixer, o_BTHV, x_BTD):
    o_BTHV = o_BTHV / (o_BTHV.square().mean(-1, keepdim=True) + mixer.config.eps).sqrt() * mixer.norm.weight
    return (o_BTHV.flatten(2) * silu(x_BTD @ mixer.gate.weight.T)) @ mixer.out.weight.T


def by_pairs(mixer, x_BTD):
    """Every pair of positions: the weight of s in t is sum_k q_t k_s times the decays between."""
    q, k, v, log_decay = parts(mixer, x_BTD)
    total_BTHK = log_decay.cumsum(1)
    between_BTSHK = (total_BTHK[:, :, None] - total_BTHK[:, None]).exp()
    weight_BTSH = torch.einsum("bthk,bshk,btshk->btsh", q / q.shape[-1] ** 0.5, k, between_BTSHK)
    seen_TS1 = torch.ones(x_BTD.shape[1], x_BTD.shape[1], dtype=torch.bool).tril()[..., None]
    return finish(mixer, torch.einsum("btsh,bshv->bthv", weight_BTSH * seen_TS1, v), x_BTD)


@pytest.mark.parametrize(
    "options", [{}, {"key_factor": 1.0, "value_factor": 1.5, "temperature": 2.0}, {"conv": 4}], ids=str
)
def test_equals_the_sum_over_all_pairs(options):
    mixer, x_BTD = build(**options), torch.randn(2, 13, 8).double()
    with torch.no_grad():
        want_BTD = by_pairs(mixer, x_BTD)
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
        assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


@pytest.mark.parity
def test_equals_the_naive_form_of_the_authors():
    naive = pytest.importorskip("fla.ops.gla.naive")
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(2, 13, 8)
    with torch.no_grad():
        y_BTD, state = mixer(x_BTD, mixer.initial_state(2))
        o_BTHV, s_BHKV = naive.naive_recurrent_gla(*parts(mixer, x_BTD), output_final_state=True)
        assert_close(state.s_BHKV, s_BHKV, rtol=1e-5, atol=1e-5)
        assert_close(y_BTD, finish(mixer, o_BTHV, x_BTD), rtol=1e-5, atol=1e-5)


def test_a_step_calls_no_kernel(monkeypatch):
    mixer, x_BTD = build(conv=3), torch.randn(2, 4, 8).double()
    want_BTD, _ = mixer(x_BTD)

    def refuse(*_):
        raise RuntimeError("a kernel was called")

    monkeypatch.setattr(_decayed, "decay_attention", refuse)
    monkeypatch.setattr(_decayed, "short_conv", refuse)
    assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_hold_the_state(side):
    mixer, x_BTD = build(conv=3), torch.randn(1, 5, 8).double()
    alone_BTD, want = mixer(x_BTD, mixer.initial_state(1))
    rest_BTD = torch.full((1, 4, 8), torch.nan).double()
    padded_BTD = torch.cat([rest_BTD, x_BTD] if side == "left" else [x_BTD, rest_BTD], 1)
    layout = Layout(lengths_B=torch.tensor([5]), side=side)
    y_BTD, state = mixer(padded_BTD, mixer.initial_state(1), layout=layout)
    assert_close(y_BTD[:, 4:] if side == "left" else y_BTD[:, :5], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close((state.s_BHKV, state.inputs_BWE), (want.s_BHKV, want.inputs_BWE), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conv", [1, 4])
def test_a_packed_document_is_that_document_alone(conv):
    mixer, x_BTD = build(conv=conv), torch.randn(1, 20, 8).double()
    starts_BT = torch.zeros(1, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    y_BTD, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(starts_BT=starts_BT))
    for begin, end in (0, 7), (7, 8), (8, 20):
        alone_BTD, after = mixer(x_BTD[:, begin:end], mixer.initial_state(1))
        assert_close(y_BTD[:, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close((state.s_BHKV, state.inputs_BWE), (after.s_BHKV, after.inputs_BWE))


def test_decays_start_near_one_half_to_the_power_of_the_inverse_temperature():
    mixer, x_BTD = build(64, heads=1), 0.01 * torch.randn(1, 50, 64).double()
    with torch.no_grad():
        decay_BTK = parts(mixer, x_BTD)[3].exp()
    assert float(decay_BTK.mean()) == pytest.approx(0.5 ** (1 / 16), abs=2e-3)


def test_states_and_decays_are_float32_under_autocast():
    """A decay of 0.9999 rounds to 1 in bfloat16."""
    mixer = build(dtype=torch.float32)
    torch.nn.init.constant_(mixer.decay.bias, 6.0)
    x_BTD = torch.randn(1, 1, 8).expand(1, 1500, 8).contiguous()
    want = mixer(x_BTD, mixer.initial_state(1))[1].s_BHKV
    with torch.autocast("cpu", torch.bfloat16):
        got = mixer(x_BTD, mixer.initial_state(1))[1].s_BHKV
    assert got.dtype == torch.float32
    assert (got - want).norm() / want.norm() < 5e-2  # keys and values have 8 bits each, and nothing averages


@pytest.mark.parametrize("bias", [-60.0, 60.0])
def test_extreme_decays_keep_everything_finite(bias):
    """At -60 a channel forgets 98 % at a step, at +60 nothing."""
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(2, 40, 8, requires_grad=True)
    torch.nn.init.constant_(mixer.decay.bias, bias)
    y_BTD = mixer(x_BTD)[0]
    slopes = torch.autograd.grad(y_BTD.square().sum(), [x_BTD, *mixer.parameters()])
    assert all(torch.isfinite(value).all() for value in (y_BTD, *slopes))
    assert_close(y_BTD.detach(), by_pairs(mixer.double(), x_BTD.detach().double()).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 0},
        {"heads": 3},
        {"key_factor": 0.1},
        {"value_factor": 0.4},
        {"low_rank": 0},
        {"temperature": 0.0},
        {"conv": 0},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        GLA(8, replace(GLA.Config(heads=2), **options))
