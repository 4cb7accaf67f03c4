from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv1d, pad, silu, softplus
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.mixers.memory.gated_delta import GatedDelta


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = GatedDelta(width, GatedDelta.Config(**{"heads": 2} | options)).to(dtype)
    torch.nn.init.normal_(mixer.norm.weight)
    return mixer


def by_steps(mixer, x_BTD):
    """The equations of the docstring, one position after the other, in plain torch."""
    options, H = mixer.config, mixer.config.heads
    taps_E1W = mixer.conv.weight[:, None]
    qkv = silu(conv1d(pad((x_BTD @ mixer.qkv.weight.T).mT, (options.conv - 1, 0)), taps_E1W, groups=len(taps_E1W)).mT)
    keys, values = mixer.sizes.keys, mixer.sizes.values
    q, k, v = (x.unflatten(-1, (H, -1)) for x in qkv.split([keys, keys, values], -1))
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    gates = x_BTD @ mixer.gates.weight.T
    beta = gates[..., :H].sigmoid() * (2 if options.negative else 1)
    a = torch.ones_like(beta)
    if options.decay:
        a = torch.exp(-mixer.writing.rate_log.exp() * softplus(gates[..., H:] + mixer.writing.step_bias))
    S, outputs = torch.zeros(len(x_BTD), H, keys // H, values // H).double(), []
    for t in range(x_BTD.shape[1]):
        S = a[:, t, :, None, None] * S
        read = torch.einsum("bhkv,bhk->bhv", S, k[:, t])
        S = S + torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], v[:, t] - read)
        outputs.append(torch.einsum("bhkv,bhk->bhv", S, q[:, t]) / (keys // H) ** 0.5)
    o = torch.stack(outputs, 1)
    o = o / (o.square().mean(-1, keepdim=True) + options.eps).sqrt() * mixer.norm.weight
    gate = silu(x_BTD @ mixer.gate.weight.T) if options.gate else 1.0
    return (o.flatten(2) * gate) @ mixer.out.weight.T


@pytest.mark.parametrize(
    "options", [{}, {"key_factor": 0.5, "value_factor": 1.5, "conv": 2}, {"decay": False, "negative": True}], ids=str
)
def test_equals_its_equations(options):
    mixer, x_BTD = build(**options), torch.randn(2, 70, 8).double()
    with torch.no_grad():
        assert_close(mixer(x_BTD)[0], by_steps(mixer, x_BTD), rtol=1e-9, atol=1e-9)


@pytest.mark.parity
@pytest.mark.parametrize("length", [1, 13, 130])
def test_equals_the_layer_of_qwen3_next(length):
    theirs = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    from transformers import Qwen3NextConfig

    sizes = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 6,
    }
    config = Qwen3NextConfig(hidden_size=8, num_hidden_layers=1, layer_types=["linear_attention"], **sizes)
    torch.manual_seed(0)
    layer = theirs.Qwen3NextGatedDeltaNet(config, 0)
    mixer = build(dtype=torch.float32, key_factor=1.0, value_factor=1.5, eps=config.rms_norm_eps)
    q, k, v, z = layer.in_proj_qkvz.weight.data.view(2, -1, 8).split([4, 4, 6, 6], 1)
    b, a = layer.in_proj_ba.weight.data.view(2, 2, 8).unbind(1)
    with torch.no_grad():
        mixer.qkv.weight.copy_(torch.cat([x.flatten(0, 1) for x in (q, k, v)]))
        mixer.gate.weight.copy_(z.flatten(0, 1))
        mixer.gates.weight.copy_(torch.cat([b, a]))
        mixer.conv.weight.copy_(layer.conv1d.weight[:, 0])
        mixer.writing.rate_log.copy_(layer.A_log)
        mixer.writing.step_bias.copy_(layer.dt_bias)
        mixer.norm.weight.copy_(layer.norm.weight)
        mixer.out.weight.copy_(layer.out_proj.weight)
        x_BTD = torch.randn(2, length, 8)
        assert_close(mixer(x_BTD)[0], layer(x_BTD), rtol=1e-4, atol=1e-5)


def test_negative_eigenvalues_turn_a_state_around():
    """With b = 2 a key that reads r and is told v reads 2 v - r next: it alternates for ever, and b <= 1 cannot."""
    read = {}
    for negative in (False, True):
        mixer = build(heads=1, negative=negative, decay=False, conv=1, gate=False)
        same = [torch.ones(1, 6, 8).double() for _ in range(3)]
        open_wide, start = torch.full((1, 6, 1), 60.0).double(), torch.ones(1, 1, 8, 8).double()
        read[negative] = mixer.writing(*same, open_wide, start, None, None)[0][0, :, 0, 0]
    assert_close(read[True][2:], read[True][:-2])
    assert (read[True][1:] - read[True][:-1]).abs().min() > 1
    assert_close(read[False], read[False][:1].expand(6))


@pytest.mark.parametrize(
    ("options", "said"), [({"heads": 3}, "heads"), ({"key_factor": 0.0}, "key_factor"), ({"conv": 0}, "conv")]
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        replace(GatedDelta.Config(), **options).build(8)
