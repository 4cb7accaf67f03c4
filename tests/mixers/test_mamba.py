import math

import pytest
import torch
from torch.nn.functional import conv1d, pad, silu, softplus
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm.mamba import Mamba

RENAMED = {
    "into": "in_proj",
    "conv": "conv1d",
    "select": "x_proj",
    "step": "dt_proj",
    "rate_log": "A_log",
    "skip": "D",
    "output": "out_proj",
}


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = Mamba(width, Mamba.Config(**{"state": 5} | options)).to(dtype)
    with torch.no_grad():
        mixer.skip.normal_()
        if mixer.conv.bias is not None:
            mixer.conv.bias.normal_()
        (mixer.step.bias if mixer.dt_selective else mixer.step_bias).uniform_(-2, 1)
    return mixer


def by_steps(mixer, x_BTD, state=None):
    state, pieces = state or mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def renamed(name):
    first, dot, rest = name.partition(".")
    return RENAMED[first] + dot + rest


def official(mixer, family="mamba"):
    """The mixer of transformers with a mixer's weights under its own names."""
    module = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    options, word = mixer.config, {"mamba": "Mamba", "falcon_mamba": "FalconMamba"}[family]
    config = getattr(module, f"{word}Config")(
        hidden_size=mixer.width,
        state_size=options.state,
        expand=options.expand,
        conv_kernel=options.conv,
        time_step_rank=mixer.rank,
        use_bias=options.bias,
        use_conv_bias=options.conv_bias,
        num_hidden_layers=1,
        vocab_size=4,
    )
    unset = () if family == "mamba" else (False,)  # its own initialisation of a mixer alone is broken
    theirs = getattr(module, f"{word}Mixer")(config, 0, *unset).eval()
    theirs.load_state_dict({renamed(name): value for name, value in mixer.state_dict().items()})
    return theirs, config


@pytest.mark.parity
@pytest.mark.parametrize("options", [{}, {"bias": True, "conv": 3, "rank": 3}, {"expand": 1}], ids=str)
def test_equals_transformers(options):
    mixer, x_BTD = build(8, torch.float32, **options), torch.randn(3, 11, 8)
    theirs, _ = official(mixer)
    assert_close(mixer(x_BTD)[0], theirs(x_BTD), rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_norms_equal_those_of_falcon_mamba():
    mixer, x_BTD = build(8, torch.float32, norm=True), torch.randn(3, 11, 8)
    theirs, _ = official(mixer, "falcon_mamba")
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
    assert_close(state.h_BEN, cache.get_recurrent_state(0), rtol=1e-5, atol=1e-5)


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
    """Position by position in plain torch; Euler's input, not the held one."""
    options, E = mixer.config, mixer.channels
    u_BTE = x_BTD @ mixer.into.weight.T
    u_BTE, z_BTE = (u_BTE[..., :E], u_BTE[..., E:]) if options.gate else (u_BTE, None)
    u_BET = conv1d(pad(u_BTE.mT, (options.conv - 1, 0)), mixer.conv.weight, mixer.conv.bias, groups=E)
    u_BTE = silu(u_BET.mT)
    rate_EN = -mixer.rate_log.exp()
    y_BTE = torch.zeros_like(u_BTE)
    for b in range(len(x_BTD)):
        h_EN = x_BTD.new_zeros(E, options.state)
        for t in range(x_BTD.shape[1]):
            u_E, made = u_BTE[b, t], None
            if options.selective != "none":
                made = mixer.select.weight @ u_E
            at = mixer.rank if mixer.dt_selective else 0
            raw_E = mixer.step.weight @ made[:at] + mixer.step.bias if mixer.dt_selective else mixer.step_bias
            dt_E = softplus(raw_E)
            if mixer.bc_selective:
                b_N, c_N = made[at : at + options.state], made[at + options.state :]
                h_EN = (dt_E[:, None] * rate_EN).exp() * h_EN + torch.outer(dt_E * u_E, b_N)
                y_E = h_EN @ c_N
            else:
                h_EN = (dt_E[:, None] * rate_EN).exp() * h_EN + (dt_E * u_E)[:, None]
                y_E = (h_EN * mixer.weight).sum(1)
            y_BTE[b, t] = y_E + mixer.skip * u_E
    return (y_BTE if z_BTE is None else y_BTE * silu(z_BTE)) @ mixer.output.weight.T


@pytest.mark.parametrize(
    "options",
    [{}, {"selective": "delta"}, {"selective": "bc", "expand": 1}, {"selective": "none"}, {"gate": False, "conv": 2}],
    ids=str,
)
def test_equals_the_equations_position_by_position(options):
    mixer, x_BTD = build(**options), torch.randn(2, 9, 8).double()
    with torch.no_grad():
        want_BTD = by_equations(mixer, x_BTD)
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
        assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


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
    assert_close((state.h_BEN, state.inputs_BKE), (want.h_BEN, want.inputs_BKE), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("selective", ["all", "none"])
def test_a_packed_document_is_that_document_alone(selective):
    """Neither the convolution's window nor the state crosses a start."""
    mixer, x_BTD = build(selective=selective), torch.randn(1, 20, 8).double()
    starts_BT = torch.zeros(1, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    y_BTD, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(starts_BT=starts_BT))
    for begin, end in (0, 7), (7, 8), (8, 20):
        alone_BTD, after = mixer(x_BTD[:, begin:end], mixer.initial_state(1))
        assert_close(y_BTD[:, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close((state.h_BEN, state.inputs_BKE), (after.h_BEN, after.inputs_BKE), rtol=1e-12, atol=1e-12)
    assert state.length_B.tolist() == [12]


@pytest.mark.parametrize("how", ["autocast", "parameters"])
def test_states_are_float32_and_slow_decays_survive_bfloat16(how):
    """A decay of 0.9995 rounds to 1 in bfloat16, and a sum of many terms in it would stop growing."""
    mixer = build(dtype=torch.float32)
    with torch.no_grad():
        mixer.step.weight.zero_()
        mixer.step.bias.fill_(-3.0)
        mixer.rate_log.fill_(-4.6)
    x_BTD = torch.randn(1, 1, 8).expand(1, 1500, 8).contiguous()
    want = mixer(x_BTD, mixer.initial_state(1))[1]
    if how == "parameters":
        mixer = mixer.bfloat16()
        got = mixer(x_BTD.bfloat16(), mixer.initial_state(1))[1]
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = mixer(x_BTD, mixer.initial_state(1))[1]
    assert got.h_BEN.dtype == got.inputs_BKE.dtype == torch.float32
    error = (got.h_BEN - want.h_BEN).norm() / want.h_BEN.norm()
    assert error.detach() < 5e-2  # inputs, maps and steps have 8 bits each, and a constant input averages nothing


def test_initial_values_are_the_papers():
    mixer = Mamba(2000, Mamba.Config(expand=1, dt=(1e-5, 0.5)))
    step_E = softplus(mixer.step.bias.detach().double())
    assert float(step_E.min()) == pytest.approx(1e-4, rel=1e-4)
    assert float(step_E.max()) == pytest.approx(0.5, rel=2e-2)
    assert float(step_E.log().median()) == pytest.approx((math.log(1e-5) + math.log(0.5)) / 2, abs=0.5)
    assert_close(mixer.rate_log.detach().exp()[7], torch.arange(1.0, 17))
    assert float(mixer.step.weight.detach().abs().max()) <= mixer.rank**-0.5
    assert mixer.rank == 125
    assert bool((mixer.skip == 1).all())


def test_what_sets_time_scales_has_no_weight_decay():
    (group,) = build().param_groups()
    assert (set(group.names), group.weight_decay) == ({"rate_log", "skip", "step.bias"}, 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"expand": 0},
        {"state": 0},
        {"conv": 0},
        {"rank": -1},
        {"dt": (0.1, 0.01)},
        {"selective": "x"},
        {"norm": True, "selective": "none"},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Mamba(8, Mamba.Config(**options))
