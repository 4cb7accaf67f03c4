"""ProbSparse against full attention, the authors' lines, transformers' port where they agree, and the look-ahead."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.mixers.attention.prob_sparse import ProbSparse, _running, measure, ranks_before


def build(width=8, **options):
    torch.manual_seed(1)
    return ProbSparse(width, ProbSparse.Config(**{"heads": 2} | options)).double().eval()


def heads(mixer, x_BTD):
    return mixer.qkv(x_BTD).unflatten(2, (3, mixer.config.heads, -1)).permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize("causal", ["no", "masked", "strict"])
def test_with_all_queries_answered_it_is_full_attention(causal):
    mixer, x_BTD = build(factor=1e3, causal=causal), torch.randn(2, 19, 8).double()
    want = scaled_dot_product_attention(*heads(mixer, x_BTD), is_causal=causal != "no").transpose(1, 2).flatten(2)
    assert_close(mixer(x_BTD)[0], mixer.out(want))


def authors(q, k, v, sample, factor, masked):
    """The published code's steps, written out: gather, max less sum over L_K, top u, mean or running sum of V."""
    B, H, L, E = q.shape
    u = min(math.ceil(factor * math.ceil(math.log(L))), L)
    M = torch.stack(
        [
            (q[:, :, i, None] * k[:, :, sample[i]]).sum(-1).amax(-1)
            - (q[:, :, i, None] * k[:, :, sample[i]]).sum((-1, -2)) / L
            for i in range(L)
        ],
        2,
    )
    top = M.topk(u).indices
    o = v.cumsum(2) if masked else v.mean(2, keepdim=True).expand(B, H, L, E).clone()
    for b in range(B):
        for h in range(H):
            for i in top[b, h].tolist():
                stop = i + 1 if masked else L
                o[b, h, i] = torch.softmax(q[b, h, i] @ k[b, h, :stop].T / E**0.5, -1) @ v[b, h, :stop]
    return o


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_steps_of_the_published_code(masked):
    options = {"causal": "masked", "lazy": "sum"} if masked else {}
    mixer, x_BTD = build(factor=1.5, **options), torch.randn(2, 40, 8).double()
    q, k, v = heads(mixer, x_BTD)
    sample = mixer._sample(40, mixer.amounts(40)[0], x_BTD.device)
    assert_close(mixer.look(q, k, v), authors(q, k, v, sample, 1.5, masked))


@pytest.mark.parity
def test_transformers_samples_the_same_keys_for_all_queries():
    """Its port takes one sample for all, of about all keys: lazy queries agree, and others are answered."""
    theirs = pytest.importorskip("transformers.models.informer.modeling_informer")
    torch.manual_seed(0)
    layer = theirs.InformerProbSparseAttention(embed_dim=8, num_heads=2, sampling_factor=2).double().eval()
    mixer, x_BTD = build(factor=2.0), torch.randn(2, 40, 8).double()
    maps = [layer.q_proj, layer.k_proj, layer.v_proj]
    with torch.no_grad():
        mixer.qkv.weight.copy_(torch.cat([m.weight for m in maps]))
        mixer.qkv.bias.copy_(torch.cat([m.bias for m in maps]))
        mixer.out.load_state_dict(layer.out_proj.state_dict())
    got, want = mixer(x_BTD)[0], layer(x_BTD)[0]
    same = ((got - want).abs().amax(2) < 1e-9).double().mean()
    assert 0.5 < same < 1  # lazy queries agree; which ones are answered differs, since the samples do


def test_strict_is_causal_and_masked_is_not():
    x_BTD = torch.randn(1, 60, 8).double()
    other = torch.cat([x_BTD[:, :30], 30 * torch.randn(1, 30, 8).double()], 1)
    for causal, sees in (("masked", True), ("strict", False)):
        mixer = build(factor=0.5, causal=causal)
        gap = (mixer(other)[0][:, :30] - mixer(x_BTD)[0][:, :30]).abs().max()
        assert bool(gap > 1e-6) == sees
        longer = (mixer(x_BTD)[0][:, :30] - mixer(x_BTD[:, :30])[0]).abs().max()
        assert bool(longer > 1e-6) == sees
    mixer = build(causal="strict")
    for length in (1, 2, 3, 7, 20):
        assert_close(mixer(x_BTD[:, :length])[0], mixer(x_BTD)[0][:, :length])


def test_training_draws_anew_and_evaluation_does_not():
    mixer, x_BTD = build(factor=0.5), torch.randn(1, 64, 8).double()
    assert torch.equal(mixer(x_BTD)[0], mixer(x_BTD)[0])
    mixer.train()
    assert not torch.equal(mixer(x_BTD)[0], mixer(x_BTD)[0])
    fixed = build(factor=0.5, redraw=False).train()
    assert torch.equal(fixed(x_BTD)[0], fixed(x_BTD)[0])


def test_the_measure_prefers_queries_that_stand_out():
    q = torch.zeros(1, 1, 8, 4).double()
    k = torch.randn(1, 1, 8, 4).double()
    q[0, 0, 3] = 5 * k[0, 0, 6]
    sample = torch.arange(8).expand(8, 8)
    assert int(measure(q, k, sample, torch.full((8,), 8)).argmax()) == 3


def test_ranks_before_are_the_places_on_arrival():
    x = torch.randint(50, (2, 3, 150)).double()
    want = torch.stack([(x[..., :t] >= x[..., t : t + 1]).sum(-1) for t in range(150)], -1)
    assert torch.equal(ranks_before(x, 150), want)
    few = ranks_before(x, 7)
    assert torch.equal(few < 7, want < 7)
    assert torch.equal(few[want < 7], want[want < 7])


def test_scores_grow_like_t_log_t():
    mixer = build()
    costs = []
    for length in (512, 1024, 2048, 4096, 8192):
        sampled, answered = mixer.amounts(length)
        costs.append(length * sampled + answered * length)
    slopes = [math.log2(b / a) for a, b in itertools.pairwise(costs)]
    assert max(slopes) < 1.25
    assert costs[3] < 0.03 * 4096**2


@pytest.mark.parametrize(
    ("options", "said"), [({"heads": 3}, "divide"), ({"factor": 0.0}, "factor"), ({"causal": "yes"}, "causal")]
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        build(**options)


def test_half_precision_does_not_overflow_in_long_rows():
    mean = _running(torch.full((1, 1, 1001, 1), 100.0, dtype=torch.float16), mean=True)
    assert mean.dtype == torch.float16
    assert (mean == 100).all()
