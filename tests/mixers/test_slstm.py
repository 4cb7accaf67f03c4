import pytest
import torch
from torch.nn.functional import conv1d, layer_norm, pad, silu
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.recurrent.slstm import SLSTM


def build(width=8, dtype=torch.float64, **options):
    """A mixer whose recurrence and biases are at work."""
    torch.manual_seed(1)
    mixer = SLSTM(width, SLSTM.Config(**{"heads": 2} | options)).to(dtype)
    with torch.no_grad():
        mixer.recurrent.normal_(std=0.5)
        mixer.bias.normal_()
        mixer.norm_weight.normal_()
        for part in (mixer.input, mixer.forget, mixer.cell, mixer.shown):
            part.weight.normal_()
    return mixer


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def by_equations(mixer, x_BTD, stabilised):
    """The paper's c, n, m, or c and n alone in float64, unit by unit."""
    H, K, options = mixer.config.heads, mixer.units, mixer.config
    s_BTD = x_BTD
    if mixer.conv is not None:
        taps_D1W = mixer.conv.weight[:, None]
        s_BDT = conv1d(pad(x_BTD.mT, (options.conv - 1, 0)), taps_D1W, mixer.conv.bias, groups=mixer.width)
        s_BTD = silu(s_BDT.mT)
    maps = (mixer.input, mixer.forget, mixer.cell, mixer.shown)
    dense = [torch.block_diag(*part.weight) for part in maps]
    outputs = torch.zeros_like(x_BTD)
    for b in range(len(x_BTD)):
        h, c, n, m = (x_BTD.new_zeros(H * K) for _ in range(4))
        for t in range(x_BTD.shape[1]):
            given = [s_BTD[b, t], s_BTD[b, t], x_BTD[b, t], x_BTD[b, t]]
            gates = []
            for g in range(4):
                inside = torch.einsum("hjk,hk->hj", mixer.recurrent[g], h.view(H, K)).flatten()
                gates.append(dense[g] @ given[g] + inside + mixer.bias[g].flatten())
            i, f, z, o = gates
            log_f = torch.nn.functional.logsigmoid(f) if options.forget == "sigmoid" else f
            if stabilised:
                after = i if t == 0 else torch.maximum(log_f + m, i)
                keep, let, m = (log_f + m - after).exp() if t else torch.zeros_like(i), (i - after).exp(), after
            else:
                keep, let = log_f.exp(), i.exp()
            c, n = keep * c + let * z.tanh(), keep * n + let
            h = o.sigmoid() * c / n
            outputs[b, t] = h
    y_BTHK = layer_norm(outputs.unflatten(-1, (H, K)), (K,), eps=options.eps)
    return y_BTHK.flatten(2) * mixer.norm_weight


@pytest.mark.parametrize("options", [{}, {"forget": "exp"}, {"conv": 1, "heads": 1}, {"heads": 4}], ids=str)
@pytest.mark.parametrize("stabilised", [False, True])
def test_equals_the_equations_unit_by_unit(options, stabilised):
    mixer, x_BTD = build(**options), torch.randn(2, 9, 8).double()
    with torch.no_grad():
        want_BTD = by_equations(mixer, x_BTD, stabilised)
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)
        assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_the_equations():
    mixer, x_BTD = build(), torch.randn(1, 6, 8).double().requires_grad_()
    weight_BTD, leaves = torch.randn(1, 6, 8).double(), [x_BTD, *mixer.parameters()]
    got = torch.autograd.grad((mixer(x_BTD)[0] * weight_BTD).sum(), leaves)
    want = torch.autograd.grad((by_equations(mixer, x_BTD, False) * weight_BTD).sum(), leaves)
    assert_close(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_gates_at_sixty_stay_finite(forget, dtype):
    mixer, x_BTD = build(dtype=dtype, forget=forget), torch.randn(3, 20, 8, dtype=dtype)
    with torch.no_grad():
        mixer.bias[:2] = 60 * torch.sign(torch.randn_like(mixer.bias[:2]))
    x_BTD.requires_grad_()
    y_BTD, state = mixer(x_BTD, mixer.initial_state(3))
    grads = torch.autograd.grad(y_BTD.square().sum(), [x_BTD, *mixer.parameters()])
    assert all(value.isfinite().all() for value in (y_BTD, state.weight_BHK, *grads))
    with torch.no_grad():
        want_BTD = by_equations(mixer.double(), x_BTD.double(), True)
    bound = 1e-8 if dtype == torch.float64 else 1e-3  # layer norms of nearly equal units lose digits
    assert_close(y_BTD.double(), want_BTD, rtol=bound, atol=bound)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_hold_the_state(side):
    mixer, x_BTD = build(), torch.randn(1, 5, 8).double()
    alone_BTD, want = mixer(x_BTD, mixer.initial_state(1))
    rest_BTD = torch.full((1, 4, 8), torch.nan).double()
    padded_BTD = torch.cat([rest_BTD, x_BTD] if side == "left" else [x_BTD, rest_BTD], 1)
    layout = Layout(lengths_B=torch.tensor([5]), side=side)
    y_BTD, state = mixer(padded_BTD, mixer.initial_state(1), layout=layout)
    assert_close(y_BTD[:, 4:] if side == "left" else y_BTD[:, :5], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close((state.h_BHK, state.weight_BHK), (want.h_BHK, want.weight_BHK), rtol=1e-12, atol=1e-12)


def test_rows_that_start_anew_do_so_each_for_itself():
    """Published code asks whether all rows of the batch are empty at once."""
    mixer, x_BTD = build(), torch.randn(2, 12, 8).double()
    starts_BT = torch.zeros(2, 12, dtype=torch.bool)
    starts_BT[0, [0, 7]] = starts_BT[1, [0, 3]] = True
    y_BTD, _ = mixer(x_BTD, layout=Layout(starts_BT=starts_BT))
    for row, cut in ((0, 7), (1, 3)):
        for begin, end in ((0, cut), (cut, 12)):
            alone_BTD, _ = mixer(x_BTD[row : row + 1, begin:end])
            assert_close(y_BTD[row : row + 1, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)


def test_names_of_the_gates_are_what_they_do():
    """In the authors' layer ``fgate`` feeds the slot of the input gate, and ``igate`` that of the forget gate."""
    mixer, x_BTD = build(conv=1, heads=1), torch.randn(1, 7, 8).double()
    with torch.no_grad():
        mixer.bias.zero_()
        mixer.recurrent.zero_()
        mixer.bias[0] = 50.0  # exp(50) of the newest input, whatever was before
        mixer.bias[3] = 50.0  # shown wholly
        mixer.input.weight.zero_()
        mixer.shown.weight.zero_()
        _, state = mixer(x_BTD, mixer.initial_state(1))
        newest = mixer.cell(x_BTD)[:, -1].tanh()
        mixer.bias[0], mixer.bias[1] = 0.0, 50.0  # all inputs weigh the same, nothing is forgotten
        mixer.forget.weight.zero_()
        _, mean = mixer(x_BTD, mixer.initial_state(1))
    assert not torch.allclose(state.cell_BHK.flatten(1), newest)  # a forget gate of 1 / 2 keeps log n at 50 too
    assert_close(mean.cell_BHK.flatten(1), mixer.cell(x_BTD).tanh().mean(1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["autocast", "parameters"])
def test_states_are_float32_under_bfloat16(how):
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(1, 30, 8)
    want_BTD, _ = mixer(x_BTD)
    if how == "parameters":
        mixer, x_BTD = mixer.bfloat16(), x_BTD.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        y_BTD, state = mixer(x_BTD, mixer.initial_state(1))
    assert state.cell_BHK.dtype == state.weight_BHK.dtype == torch.float32
    error = (y_BTD.detach().float() - want_BTD.detach()).norm() / want_BTD.detach().norm()
    assert error < 0.1  # weights of 8 bits, fed back 30 times


def test_forget_gates_start_at_many_time_scales():
    first, last = SLSTM(32, SLSTM.Config(heads=2)), SLSTM(32, SLSTM.Config(heads=2, depth=1.0))
    for mixer, power in ((first, 0.3), (last, 1.6)):
        bias_K = mixer.bias[1, 0].detach()
        assert_close(bias_K, 5 - 12 * (torch.arange(16) / 15) ** power)
        assert not mixer.recurrent.any()


@pytest.mark.parametrize(
    "options", [{"heads": 3}, {"conv": 0}, {"forget": "relu"}, {"depth": 2.0}, {"eps": 0.0}], ids=str
)
def test_impossible_options_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        SLSTM(8, SLSTM.Config(**options))


def test_an_empty_chunk_leaves_the_state():
    mixer, state = build(), build().initial_state(2)
    y_BTD, after = mixer(torch.zeros(2, 0, 8).double(), state)
    assert y_BTD.shape == (2, 0, 8)
    assert torch.equal(after.weight_BHK, state.weight_BHK)
