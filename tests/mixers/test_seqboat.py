"""SeqBoat: nobody attends, everybody attends, a window that counts active positions, and what neighbours may change."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.route import Routes
from seqloom.mixers.hybrid.seqboat import SeqBoat


def build(bias=None, **options):
    torch.manual_seed(1)
    mixer = SeqBoat(8, SeqBoat.Config(**{"averages": 3} | options)).double().eval()
    if bias is not None:
        with torch.no_grad():
            mixer.route.bias.copy_(torch.tensor([0.0, bias]))
            mixer.route.weight.mul_(1e-3 if abs(bias) > 1 else 1)
    with torch.no_grad():
        mixer.scale.normal_()
    return mixer


def averaged(mixer, x_BTD):
    return silu(mixer.ema(x_BTD)[0])


def dense(mixer, x_BTD, window):
    """Every position attends: one gated attention unit with rotary positions and a window."""
    m = averaged(mixer, x_BTD)
    z, r, v = silu(mixer.into(m)).split([mixer.keys, mixer.values, mixer.values], -1)
    qk = mixer.rotary(z[:, :, None] * mixer.scale + mixer.shift, torch.arange(x_BTD.shape[1])[None])
    q, k = qk.unbind(2)
    at = torch.arange(x_BTD.shape[1])
    seen = (at <= at[:, None]) & (at > at[:, None] - window)
    if mixer.config.weights == "softmax":
        o = scaled_dot_product_attention(q, k, v, attn_mask=seen)
    else:
        o = (torch.relu(q @ k.mT).square() * seen / window) @ v
    p = mixer.choose(m)[1]
    return silu(mixer.past(m) + p[..., None] * mixer.back(o * r) + x_BTD)


def test_where_nobody_attends_it_is_the_average_alone():
    mixer, x_BTD = build(bias=-50.0), torch.randn(2, 17, 8).double()
    m = averaged(mixer, x_BTD)
    assert not mixer.choose(m)[0].any()
    assert torch.equal(mixer(x_BTD)[0], silu(mixer.past(m) + x_BTD + 0.0))
    mixer(x_BTD)[0].sum().backward()
    assert mixer.into.weight.grad is not None  # zeros, not nothing: gradients of several processes are added up
    assert mixer.into.weight.grad.abs().sum() == 0


def test_without_a_router_everybody_attends():
    mixer, x_BTD = build(sparse=False, window=4), torch.randn(2, 23, 8).double()
    assert_close(mixer(x_BTD)[0], dense(mixer, x_BTD, 4))


@pytest.mark.parametrize("weights", ["softmax", "relu2"])
@pytest.mark.parametrize("window", [1, 5, 64])
def test_where_everybody_attends_it_is_dense(weights, window):
    mixer, x_BTD = build(bias=50.0, weights=weights, window=window), torch.randn(2, 23, 8).double()
    assert_close(mixer(x_BTD)[0], dense(mixer, x_BTD, window))


def test_the_window_counts_active_positions():
    """However many resting positions lie between two active ones: with a window of two they still see each other."""
    mixer = build(window=2)
    x_BTD = torch.randn(1, 400, 8).double()
    active = mixer.choose(averaged(mixer, x_BTD))[0][0]
    places = active.nonzero().flatten()
    assert 1 < len(places) < 400
    routes = Routes.of(torch.where(active, 0, -1)[None, :, None], 1)
    m_PD = routes.line(averaged(mixer, x_BTD)).detach().requires_grad_()
    h_PD = mixer._attend(m_PD, places, routes, None)[0]
    (slope_PD,) = torch.autograd.grad(h_PD[5].sum(), m_PD)
    assert (slope_PD.abs().sum(1) > 0).nonzero().flatten().tolist() == [4, 5]


def test_rows_do_not_feel_each_other_however_many_attend():
    mixer, x_BTD = build(window=4), torch.randn(3, 30, 8).double()
    want = torch.cat([mixer(x_BTD[b : b + 1])[0] for b in range(3)])
    assert_close(mixer(x_BTD)[0], want)
    x_BTD[2] *= 0  # a row that hardly attends beside others
    assert_close(mixer(x_BTD)[0][:2], want[:2])


@pytest.mark.parametrize("weights", ["softmax", "relu2"])
def test_steps_pieces_and_pads_agree(weights):
    mixer, x_BTD = build(window=3, weights=weights), torch.randn(2, 41, 8).double()
    want = mixer(x_BTD)[0]
    state, pieces = mixer.initial_state(2), []
    for x in x_BTD.split([1] * 5 + [20, 1, 15], 1):
        y, state = mixer(x, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), want)
    short = mixer(x_BTD, mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([41, 11])))[1]
    alone = mixer(x_BTD[1:, :11], mixer.initial_state(1))[1]
    assert_close(short.k_BGWK[1:], alone.k_BGWK)
    assert torch.equal(short.entered_B[1:], alone.entered_B)


def test_the_router_learns_through_the_weight_of_active_positions_alone():
    mixer, x_BTD = build(), torch.randn(1, 40, 8).double()
    mixer(x_BTD)[0].sum().backward()
    assert mixer.route.weight.grad.abs().sum() > 0
    assert mixer.temperature.grad.abs() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"window": 0}, "window"), ({"key_factor": 0.1}, "key_factor"), ({"weights": "sigmoid"}, "weights")],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        build(**options)


def test_a_layer_that_sees_both_sides_counts_both():
    one, both = (SeqBoat(8, SeqBoat.Config(window=4, sparse=False, causal=causal)) for causal in (True, False))
    apart = (both.flops(64) - both.ema.flops(64)) - (one.flops(64) - one.ema.flops(64))
    assert apart == 2 * 64 * (7 - 4) * (one.keys + one.values)
