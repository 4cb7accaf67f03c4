import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.attention.linear_attention import LinearAttention
from seqloom.testing.mixers import check_mixer, options

WIDTH = 12


def build(dtype=torch.float64, **chosen) -> LinearAttention:
    torch.manual_seed(0)
    return LinearAttention(WIDTH, LinearAttention.Config(**chosen)).to(dtype)


def inputs(B: int, T: int, dtype=torch.float64) -> Tensor:
    return torch.randn(B, T, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def by_hand(mixer: LinearAttention, x_BTD: Tensor) -> Tensor:
    """Equation 9 of the paper: every pair of positions, weights of features, one position at a time."""
    config, K = mixer.config, mixer.head_width
    q, k, v = (x.unflatten(2, (config.heads, K)) for x in mixer.qkv(x_BTD).chunk(3, -1))
    if config.feature == "elu":
        q, k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    else:
        q, k = q.clamp_min(0), k.clamp_min(0)
    rows = []
    for t in range(x_BTD.shape[1]):
        stop = t + 1 if config.causal else None
        weight_BHS = torch.einsum("bhk,bshk->bhs", q[:, t], k[:, :stop])
        total_BH1 = weight_BHS.sum(-1, keepdim=True) + config.eps
        rows.append(torch.einsum("bhs,bshk->bhk", weight_BHS / total_BH1, v[:, :stop]))
    return mixer.out(torch.stack(rows, 1).flatten(2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("feature", ["elu", "relu"])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_equals_the_weights_of_all_pairs_with_gradients(causal, feature, chunk):
    mixer = build(causal=causal, feature=feature, chunk=chunk, heads=3, bias=True, eps=1e-3)
    x_BTD = inputs(2, 13).requires_grad_()
    into = [x_BTD, *mixer.parameters()]
    y_BTD, want_BTD = mixer(x_BTD)[0], by_hand(mixer, x_BTD)
    assert_close(y_BTD, want_BTD)
    got = torch.autograd.grad(y_BTD.sin().sum(), into)
    assert_close(got, torch.autograd.grad(want_BTD.sin().sum(), into))


def test_the_state_is_the_sum_over_the_past_and_stays_float32():
    mixer, x_BTD = build(torch.bfloat16), inputs(2, 7, torch.bfloat16)
    y_BTD, state = mixer(x_BTD, mixer.initial_state(2))
    assert (y_BTD.dtype, state.s_BHKW.dtype) == (torch.bfloat16, torch.float32)
    _, k, v = (x.unflatten(2, (4, 3)).float() for x in mixer.qkv(x_BTD).chunk(3, -1))
    k = torch.nn.functional.elu(k) + 1
    assert_close(state.s_BHKW[..., :-1], torch.einsum("bthk,bthv->bhkv", k, v))
    assert_close(state.s_BHKW[..., -1], k.sum(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = build(torch.float32)
        state = wide(inputs(2, 7, torch.float32), wide.initial_state(2))[1]
        assert wide(inputs(2, 1, torch.float32), state)[1].s_BHKW.dtype == torch.float32


def test_pads_leave_the_state_alone_even_if_they_are_not_numbers():
    mixer, x_BTD = build(), inputs(2, 6)
    x_BTD[1, 4:] = torch.nan
    _, state = mixer(x_BTD, mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([6, 4])))
    assert_close(state.s_BHKW[1:], mixer(x_BTD[1:, :4], mixer.initial_state(1))[1].s_BHKW)


@pytest.mark.parametrize(
    ("chosen", "words"), [({"heads": 5}, "divide"), ({"chunk": 0}, "chunk"), ({"feature": "x"}, "feature")]
)
def test_bad_options_are_refused(chosen, words):
    with pytest.raises(ConfigError, match=words):
        build(**chosen)


def test_contract_at_the_default_options():
    assert set(check_mixer(LinearAttention.Config()).values()) == {"holds"}


@pytest.mark.slow
@pytest.mark.parametrize("config", [config for _, config in options("linear_attention")], ids=str)
def test_contract(config):
    check_mixer(config, full=True)


def test_each_option_changes_what_it_says():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 8)
    assert LinearAttention(8, LinearAttention.Config(bias=True)).out.bias is not None
    assert LinearAttention(8).qkv.bias is None
    both = [
        LinearAttention(8, LinearAttention.Config(causal=causal, eps=eps))
        for causal, eps in ((True, 1e-6), (False, 1e-6), (True, 1e6))
    ]
    for mixer in both[1:]:
        mixer.load_state_dict(both[0].state_dict())
    causal, whole, damped = (mixer(x)[0] for mixer in both)
    torch.testing.assert_close(causal[:, -1], whole[:, -1])
    assert not torch.allclose(causal[:, 0], whole[:, 0])
    assert damped.abs().max() < 1e-3 * causal.abs().max()
