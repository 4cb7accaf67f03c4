import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm.rg_lru import RGLRU, STEEPEST, _share

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = RGLRU(width, RGLRU.Config(**options)).to(dtype)
    for name, value in mixer.named_parameters():
        if value.ndim == 1 and "bias" in name:
            torch.nn.init.normal_(value)
    return mixer


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def official(mixer):
    """The recurrent block of transformers with a mixer's weights."""
    gemma = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    options = mixer.config
    sizes = {"hidden_size": mixer.width, "lru_width": mixer.hidden, "num_attention_heads": options.heads}
    config = gemma.RecurrentGemmaConfig(**sizes, conv1d_width=options.conv, num_hidden_layers=1, vocab_size=4)
    block = gemma.RecurrentGemmaRecurrentBlock(config, 0).to(mixer.decay_logit.dtype)
    unit, blocks = block.rg_lru, (options.heads, -1)
    with torch.no_grad():
        unit.recurrent_param.copy_(mixer.decay_logit)
        unit.recurrent_gate_weight.copy_(mixer.recurrence_gate.weight.mT)
        unit.recurrent_gate_bias.copy_(mixer.recurrence_gate.bias.view(blocks))
        unit.input_gate_weight.copy_(mixer.input_gate.weight.mT)
        unit.input_gate_bias.copy_(mixer.input_gate.bias.view(blocks))
        if options.block:
            block.linear_y.load_state_dict(mixer.gate.state_dict())
            block.linear_x.load_state_dict(mixer.into.state_dict())
            block.linear_out.load_state_dict(mixer.output.state_dict())
            block.conv_1d.weight.copy_(mixer.conv_weight[:, None])
            block.conv_1d.bias.copy_(mixer.conv_bias)
    return block


def accumulate_widely(unit, monkeypatch):
    """Theirs sums in float32 whatever the dtype; the comparison in float64 needs float64 sums."""
    scan = unit._rnn_scan
    monkeypatch.setattr(unit, "_rnn_scan", lambda **given: scan(**given, acc_dtype=given["hidden_states"].dtype))


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("heads", [1, 2])
def test_equals_the_unit_of_transformers(dtype, heads, monkeypatch):
    mixer = build(8, dtype, block=False, heads=heads)
    unit, x_BTD = official(mixer).rg_lru, torch.randn(3, 17, 8, dtype=dtype)
    accumulate_widely(unit, monkeypatch)
    bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    with torch.no_grad():
        want_BTD = unit(x_BTD, torch.arange(17).expand(3, -1))
        y_BTD, state = mixer(x_BTD, mixer.initial_state(3))
        assert_close(y_BTD, want_BTD, **bound)
        assert_close(state.h_BH, unit.recurrent_states, **bound)
        later_BTD = torch.randn(3, 5, 8, dtype=dtype)
        for at, x_B1D in enumerate(later_BTD.split(1, 1)):
            want_B1D = unit(x_B1D, torch.full((3, 1), 17 + at))
            y_B1D, state = mixer(x_B1D, state)
            assert_close(y_B1D, want_B1D, **bound)
        assert_close(state.h_BH, unit.recurrent_states, **bound)
        unit.recurrent_states = None
        assert_close(by_steps(mixer, x_BTD)[0], unit(x_BTD, torch.arange(17).expand(3, -1)), **bound)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_equal_those_of_transformers(dtype, monkeypatch):
    mixer = build(8, dtype, block=False, heads=2)
    unit, x_BTD, weight_BTD = official(mixer).rg_lru, *torch.randn(2, 2, 9, 8, dtype=dtype)
    accumulate_widely(unit, monkeypatch)
    x_BTD.requires_grad_()
    ours = torch.autograd.grad((mixer(x_BTD)[0] * weight_BTD).sum(), [x_BTD, mixer.decay_logit])
    want_BTD = unit(x_BTD, torch.arange(9).expand(2, -1))
    theirs = torch.autograd.grad((want_BTD * weight_BTD).sum(), [x_BTD, unit.recurrent_param])
    assert_close(ours, theirs, rtol=10 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("documents", [(17,), (5, 12)])
def test_equals_the_recurrent_block_of_transformers(dtype, documents, monkeypatch):
    """Whole, then step by step; packed documents as theirs, once the convolution, which crosses them there, is off."""
    mixer = build(8, dtype, heads=2)
    if len(documents) > 1:
        with torch.no_grad():
            mixer.conv_weight[:, :-1] = 0
    block, x_BTD = official(mixer), torch.randn(3, 17, 8, dtype=dtype)
    accumulate_widely(block.rg_lru, monkeypatch)
    block._setup_cache(3, "cpu", dtype)
    position_BT = torch.cat([torch.arange(length) for length in documents]).expand(3, -1)
    bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    with torch.no_grad():
        want_BTD = block(x_BTD, position_BT, None)[0]
        layout = Layout(starts_BT=position_BT == 0) if len(documents) > 1 else Layout()
        y_BTD, state = mixer(x_BTD, mixer.initial_state(3), layout=layout)
        assert_close(y_BTD, want_BTD, **bound)
        assert_close(state.h_BH, block.rg_lru.recurrent_states, **bound)
        assert_close(state.inputs_BKH.transpose(1, 2), block.conv1d_state, **bound)
        for at, x_B1D in enumerate(torch.randn(3, 5, 8, dtype=dtype).split(1, 1)):
            want_B1D = block(x_B1D, position_BT[:, -1:] + 1 + at, None)[0]
            y_B1D, state = mixer(x_B1D, state)
            assert_close(y_B1D, want_B1D, **bound)
        assert_close(state.h_BH, block.rg_lru.recurrent_states, **bound)


def test_equals_the_equations_position_by_position():
    mixer, x_BTD = build(block=False, heads=4), torch.randn(2, 11, 8).double()
    sigmoid, want, h_BD = torch.sigmoid, [], torch.zeros(2, 8).double()
    gates = (mixer.recurrence_gate, mixer.input_gate)
    dense = [(torch.block_diag(*gate.weight), gate.bias) for gate in gates]
    for t, x_BD in enumerate(x_BTD.unbind(1)):
        r_BD, i_BD = (sigmoid(x_BD @ weight.T + bias) for weight, bias in dense)
        a_BD = (1 + mixer.decay_logit.exp()) ** (-8 * r_BD)  # exp(-softplus(L)) to the power c r
        h_BD = i_BD * x_BD if t == 0 else a_BD * h_BD + (1 - a_BD**2).sqrt() * i_BD * x_BD
        want.append(h_BD)
    assert_close(mixer(x_BTD)[0], torch.stack(want, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", RGLRU.grid(), ids=str)
def test_a_packed_document_is_that_document_alone(config):
    mixer, x_BTD = RGLRU(24, config).double(), torch.randn(1, 20, 24).double()
    starts_BT = torch.zeros(1, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    y_BTD, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(starts_BT=starts_BT))
    for begin, end in (0, 7), (7, 8), (8, 20):
        alone_BTD, after = mixer(x_BTD[:, begin:end], mixer.initial_state(1))
        assert_close(y_BTD[:, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close(state.h_BH, after.h_BH)
    assert_close(state.inputs_BKH, after.inputs_BKH)
    assert state.length_B.tolist() == [12]


def test_the_first_position_is_not_scaled_and_a_row_without_one_waits():
    """A row whose chunk was empty still has its first position before it."""
    mixer, x_BTD = build(block=False), torch.randn(2, 6, 8).double()
    _, state = mixer(x_BTD[:, :2], mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([0, 2])))
    y_BTD, _ = mixer(x_BTD[:, 2:], state)
    assert_close(y_BTD[:1], mixer(x_BTD[:1, 2:])[0])
    assert_close(y_BTD[1:], mixer(x_BTD[1:])[0][:, 2:])
    gate_BD = mixer.input_gate(x_BTD[:, 0]).sigmoid()
    assert_close(mixer(x_BTD)[0][:, 0], gate_BD * x_BTD[:, 0])


@pytest.mark.parametrize("gate", ["recurrence_gate", "input_gate"])
@pytest.mark.parametrize("bias", [-60.0, 60.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extreme_gates_keep_everything_finite(gate, bias, dtype):
    """R = 0 is a = 1 to rounding, where the root's slope would be infinite."""
    mixer = RGLRU(8, RGLRU.Config(block=False)).to(dtype)
    torch.nn.init.constant_(getattr(mixer, gate).bias, bias)
    x_BTD = torch.randn(2, 9, 8).to(dtype).requires_grad_()
    y_BTD = mixer(x_BTD)[0]
    slopes = torch.autograd.grad(y_BTD.float().square().sum(), [x_BTD, *mixer.parameters()])
    assert all(torch.isfinite(value).all() for value in (y_BTD, *slopes))


def test_the_roots_slope_is_bounded():
    """By the chain rule -2 a^2 / (2 sqrt(1 - a^2)), the second factor never above 1000."""
    log_a = torch.tensor([-1e-16, -1e-9, -0.1, -2.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    share = _share(log_a)
    square = -torch.expm1(2 * log_a.detach())
    assert_close(share, square.sqrt())
    (slope,) = torch.autograd.grad(share.sum(), log_a)
    assert_close(slope, -2 * (1 - square) * (0.5 / square.sqrt()).clamp_max(STEEPEST))
    assert slope[:2].tolist() == pytest.approx([-2 * STEEPEST] * 2)


def test_decays_start_in_their_range_and_are_float32_under_autocast():
    mixer = RGLRU(4000, RGLRU.Config(block=False, heads=400, decay=(0.9, 0.999)))
    a_H = torch.exp(-torch.nn.functional.softplus(mixer.decay_logit.detach().double()))
    assert float(a_H.min()) == pytest.approx(0.9, abs=1e-3)
    assert float(a_H.max()) == pytest.approx(0.999, abs=1e-3)
    assert float(a_H.square().mean()) == pytest.approx((0.81 + 0.998) / 2, abs=5e-3)  # uniform in the square
    with torch.autocast("cpu", torch.bfloat16):
        state = mixer(torch.randn(1, 3, 4000), mixer.initial_state(1))[1]
    assert state.h_BH.dtype == state.inputs_BKH.dtype == torch.float32


def test_slow_decays_survive_bfloat16():
    """A = 0.9999 rounds to 1 in bfloat16: the decay, its complement and the sum must all be wider than the inputs."""
    mixer = RGLRU(8, RGLRU.Config(block=False, decay=(0.9999, 0.9999)))
    x_BTD = torch.ones(1, 2000, 8)
    want_BTD = mixer(x_BTD)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got_BTD = mixer(x_BTD)[0]
    assert_close(got_BTD[:, -1].float(), want_BTD[:, -1], rtol=2e-2, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 3},
        {"hidden": -1},
        {"hidden": 12, "block": False},
        {"conv": 0},
        {"sharpness": 0.0},
        {"decay": (0.9, 0.8)},
        {"decay": (0.5, 1.0)},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"blocks|hidden|conv|sharpness|decay"):
        RGLRU(8, replace(RGLRU.Config(), **options))


def test_the_decay_has_no_weight_decay():
    (group,) = build().param_groups()
    assert (group.names, group.lr, group.weight_decay) == (("decay_logit",), None, 0.0)


def test_memory_of_an_open_gate_is_that_of_its_decay():
    """With every gate open a step multiplies by exp(-c softplus(L)): the impulse response is its power."""
    mixer = build(block=False, decay=(0.9, 0.99))
    with torch.no_grad():
        for gate in (mixer.recurrence_gate, mixer.input_gate):
            gate.weight.zero_()
            gate.bias.fill_(math.inf)
        x_BTD = torch.zeros(1, 9, 8).double()
        x_BTD[:, 0] = 1
        a_H = (1 + mixer.decay_logit.exp()) ** -8.0
        assert_close(mixer(x_BTD)[0][0], a_H ** torch.arange(9)[:, None])
