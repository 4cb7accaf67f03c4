import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv1d, pad, silu, softplus
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.attention import _decayed
from seqloom.mixers.ssm.mamba2 import Mamba2

SMALL = {"head_width": 4, "state": 5, "groups": 2}
RENAMED = {
    "into": "in_proj",
    "conv": "conv1d",
    "step_bias": "dt_bias",
    "decay_log": "A_log",
    "skip": "D",
    "output": "out_proj",
}


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = Mamba2(width, Mamba2.Config(**SMALL | options)).to(dtype)
    with torch.no_grad():
        for name in ("skip", "norm.weight", "conv.bias"):
            mixer.get_parameter(name).normal_()
        mixer.step_bias.uniform_(-2, 1)
    return mixer


def by_steps(mixer, x_BTD, state=None):
    state, pieces = state or mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def renamed(name):
    first, dot, rest = name.partition(".")
    return RENAMED.get(first, first) + dot + rest


def official(mixer):
    """The mixer of transformers with a mixer's weights under its own names."""
    mamba2 = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    options = mixer.config
    config = mamba2.Mamba2Config(
        hidden_size=mixer.width,
        num_heads=mixer.heads,
        head_dim=mixer.head_width,
        state_size=options.state,
        n_groups=options.groups,
        expand=options.expand,
        conv_kernel=options.conv,
        use_bias=options.bias,
        time_step_limit=options.step_limit,
        chunk_size=4,
        num_hidden_layers=1,
        vocab_size=4,
    )
    theirs = mamba2.Mamba2Mixer(config, 0).eval()
    weights = {renamed(name): value for name, value in mixer.state_dict().items()}
    weights["conv1d.weight"] = weights["conv1d.weight"][:, None]
    theirs.load_state_dict(weights)
    return theirs, config


@pytest.mark.parity
@pytest.mark.parametrize("options", [{}, {"bias": True, "conv": 3, "step_limit": (0.05, 0.4)}, {"groups": 1}], ids=str)
def test_equals_transformers(options):
    """Theirs computes in float32 whatever the dtype."""
    mixer, x_BTD = build(8, torch.float32, **options), torch.randn(3, 11, 8)
    theirs, _ = official(mixer)
    assert_close(mixer(x_BTD)[0], theirs(x_BTD), rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_goes_on_as_transformers_does():
    """A prefill and single positions, and the states that they leave."""
    cache_utils = pytest.importorskip("transformers.cache_utils")
    mixer, x_BTD = build(8, torch.float32), torch.randn(3, 11, 8)
    theirs, config = official(mixer)
    cache, state = cache_utils.DynamicCache(config=config), mixer.initial_state(3)
    with torch.no_grad():
        for piece_BTD in (x_BTD[:, :6], *x_BTD[:, 6:].split(1, 1)):
            y_BTD, state = mixer(piece_BTD, state)
            assert_close(y_BTD, theirs(piece_BTD, cache_params=cache), rtol=1e-5, atol=1e-5)
    assert_close(state.s_BHNP.mT, cache.get_recurrent_state(0), rtol=1e-5, atol=1e-5)
    assert_close(state.inputs_BKI.mT, cache.get_conv_state(0)[..., -3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_gradients_equal_those_of_transformers():
    mixer, (x_BTD, weight_BTD) = build(8, torch.float32), torch.randn(2, 2, 9, 8)
    theirs, _ = official(mixer)
    x_BTD.requires_grad_()
    ours = torch.autograd.grad((mixer(x_BTD)[0] * weight_BTD).sum(), [x_BTD, *mixer.parameters()])
    into = [x_BTD, *(theirs.get_parameter(renamed(name)) for name, _ in mixer.named_parameters())]
    want = torch.autograd.grad((theirs(x_BTD) * weight_BTD).sum(), into)
    for got, value in zip(ours, want, strict=True):
        assert_close(got, value.view_as(got), rtol=1e-4, atol=1e-4)


def by_equations(mixer, x_BTD):
    """Position by position, head by head, in plain torch."""
    options, E = mixer.config, mixer.inner
    GN, R = options.groups * options.state, mixer.heads // options.groups
    into_BTI = x_BTD @ mixer.into.weight.T
    z_BTE, u_BTI, step_BTH = into_BTI[..., :E], into_BTI[..., E : -mixer.heads], into_BTI[..., -mixer.heads :]
    taps_I1K = mixer.conv.weight[:, None]
    u_BIT = conv1d(pad(u_BTI.mT, (options.conv - 1, 0)), taps_I1K, mixer.conv.bias, groups=len(taps_I1K))
    u_BTI = silu(u_BIT.mT)
    step_BTH = softplus(step_BTH + mixer.step_bias)
    y_BTE = torch.zeros_like(z_BTE)
    skip_HP = mixer.skip.view(mixer.heads, -1).expand(-1, mixer.head_width)
    for b in range(len(x_BTD)):
        for h in range(mixer.heads):
            g, own = h // R, slice(h * mixer.head_width, (h + 1) * mixer.head_width)
            S_NP = x_BTD.new_zeros(options.state, mixer.head_width)
            for t in range(x_BTD.shape[1]):
                key_N = u_BTI[b, t, E + g * options.state :][: options.state]
                query_N = u_BTI[b, t, E + GN + g * options.state :][: options.state]
                x_P, step = u_BTI[b, t, own], step_BTH[b, t, h]
                S_NP = (-step * mixer.decay_log[h].exp()).exp() * S_NP + torch.outer(key_N, step * x_P)
                y_BTE[b, t, own] = query_N @ S_NP + skip_HP[h] * x_P
    y_BTGE = (y_BTE * silu(z_BTE)).unflatten(-1, (options.groups, -1))
    y_BTGE = y_BTGE / (y_BTGE.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return (y_BTGE.flatten(2) * mixer.norm.weight) @ mixer.output.weight.T


@pytest.mark.parametrize("options", [{}, {"groups": 1, "conv": 2}, {"skip": "channel"}, {"expand": 1}], ids=str)
def test_equals_the_equations_position_by_position(options):
    mixer, x_BTD = build(**options), torch.randn(2, 9, 8).double()
    with torch.no_grad():
        want_BTD = by_equations(mixer, x_BTD)
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
        assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


def test_a_step_calls_no_kernel(monkeypatch):
    """One position of every row is worked out directly; a whole is not."""
    mixer, x_BTD = build(), torch.randn(2, 4, 8).double()
    want_BTD, _ = mixer(x_BTD)

    def refuse(*_):
        raise RuntimeError("a kernel was called")

    monkeypatch.setattr(_decayed, "decay_attention", refuse)
    monkeypatch.setattr(_decayed, "short_conv", refuse)
    assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
    with pytest.raises(RuntimeError, match="kernel"):
        mixer(x_BTD)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_hold_the_state_and_no_bias_leaks(side):
    """The convolution's bias would be an input at pads, and a step size there would forget."""
    mixer, x_BTD = build(conv=3), torch.randn(1, 5, 8).double()
    alone_BTD, want = mixer(x_BTD, mixer.initial_state(1))
    rest_BTD = torch.full((1, 4, 8), torch.nan).double()
    padded_BTD = torch.cat([rest_BTD, x_BTD] if side == "left" else [x_BTD, rest_BTD], 1)
    layout = Layout(lengths_B=torch.tensor([5]), side=side)
    y_BTD, state = mixer(padded_BTD, mixer.initial_state(1), layout=layout)
    assert_close(y_BTD[:, 4:] if side == "left" else y_BTD[:, :5], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close((state.s_BHNP, state.inputs_BKI), (want.s_BHNP, want.inputs_BKI), rtol=1e-12, atol=1e-12)


def test_a_packed_document_is_that_document_alone():
    """Neither the convolution nor the sum crosses a start."""
    mixer, x_BTD = build(), torch.randn(1, 20, 8).double()
    starts_BT = torch.zeros(1, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    y_BTD, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(starts_BT=starts_BT))
    for begin, end in (0, 7), (7, 8), (8, 20):
        alone_BTD, after = mixer(x_BTD[:, begin:end], mixer.initial_state(1))
        assert_close(y_BTD[:, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close((state.s_BHNP, state.inputs_BKI), (after.s_BHNP, after.inputs_BKI))
    assert state.length_B.tolist() == [12]


@pytest.mark.parametrize("how", ["autocast", "parameters"])
def test_states_are_float32_and_slow_decays_survive_bfloat16(how):
    """A decay of 0.9995 rounds to 1 in bfloat16, and a sum of 2000 terms in it would stop growing."""
    mixer = build(dtype=torch.float32, groups=1)
    with torch.no_grad():
        mixer.step_bias.fill_(-3.0)
        mixer.decay_log.fill_(-4.6)
    x_BTD = torch.randn(1, 1, 8).expand(1, 1500, 8).contiguous()
    want = mixer(x_BTD, mixer.initial_state(1))[1]
    if how == "parameters":
        mixer = mixer.bfloat16()
        got = mixer(x_BTD.bfloat16(), mixer.initial_state(1))[1]
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = mixer(x_BTD, mixer.initial_state(1))[1]
    assert got.s_BHNP.dtype == got.inputs_BKI.dtype == torch.float32
    error = (got.s_BHNP - want.s_BHNP).norm() / want.s_BHNP.norm()
    assert error < 5e-2  # inputs, keys and steps have 8 bits each, and a constant input averages nothing


def test_step_sizes_and_rates_start_in_their_ranges():
    mixer = Mamba2(4000, Mamba2.Config(expand=1, head_width=1, state=1, steps=(1e-5, 0.5), decay=(1.0, 16.0)))
    step_H, rate_H = softplus(mixer.step_bias.detach().double()), mixer.decay_log.detach().double().exp()
    assert float(step_H.min()) == pytest.approx(1e-4, rel=1e-4)
    assert float(step_H.max()) == pytest.approx(0.5, rel=2e-2)
    assert float(step_H.log().median()) == pytest.approx((math.log(1e-5) + math.log(0.5)) / 2, abs=0.5)
    assert float(rate_H.mean()) == pytest.approx(8.5, abs=0.3)
    assert float(rate_H.min()) >= 0.9999
    assert float(rate_H.max()) <= 16.0001


def test_heads_are_64_channels_or_a_power_of_two_that_divides():
    assert [Mamba2(width).head_width for width in (8, 48, 100)] == [16, 32, 8]
    assert Mamba2(96).head_width == 64


@pytest.mark.parametrize(
    "options",
    [
        {"expand": 0},
        {"head_width": 3},
        {"head_width": -4},
        {"state": 0},
        {"groups": 3},
        {"conv": 0},
        {"steps": (0.1, 0.01)},
        {"step_limit": (0.5, 0.5)},
        {"decay": (0.0, 1.0)},
        {"skip": "row"},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        Mamba2(8, replace(Mamba2.Config(**SMALL), **options))


def test_what_sets_time_scales_has_no_weight_decay():
    (group,) = build().param_groups()
    assert (set(group.names), group.lr, group.weight_decay) == ({"step_bias", "decay_log", "skip"}, None, 0.0)
