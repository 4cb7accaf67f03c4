"""Sparse attention against torch's own under a mask, and its laws: what counts once, what sees nothing, gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.block_attention import block_attention
from seqloom.kernels.sparse_attention import sparse_attention

BACKENDS = ["reference", "torch_cpu"]


def draw(B=2, H=4, G=2, T=37, S=45, K=8, dtype=torch.float64):
    return tuple(torch.randn(B, n, m, K, dtype=dtype) for n, m in ((H, T), (G, S), (G, S)))


def lists(*shape, blocks):
    return torch.rand(*shape[:-1], blocks).argsort(-1)[..., : shape[-1]]


def mask(index, offset, T, S, queries, keys, window, sinks):
    """Which query sees which key, entry by entry."""
    B, heads, _, _ = index.shape
    seen = torch.zeros(B, heads, T, S, dtype=torch.bool)
    for b in range(B):
        for h in range(heads):
            for t in range(T):
                at = int(offset[b]) + t
                wanted = {
                    s for n in index[b, h, t // queries].tolist() if n >= 0 for s in range(n * keys, (n + 1) * keys)
                }
                wanted |= set(range(sinks)) | set(range(at - window + 1, at + 1))
                for s in wanted:
                    if 0 <= s < S and s <= at:
                        seen[b, h, t, s] = True
    return seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [(1, 1, 0, 0), (4, 2, 5, 3), (8, 4, 1, 0), (37, 3, 9, 1)], ids=str)
def test_equals_torch_under_the_mask(backend, options):
    (q, k, v), (queries, keys, window, sinks) = draw(), options
    index, offset = lists(2, 2, -(-37 // queries), 3, blocks=-(-45 // keys)), torch.tensor([8, 3])
    seen = mask(index, offset, 37, 45, *options).repeat_interleave(2, 1)
    want = scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    want = want.masked_fill(~seen.any(-1, keepdim=True), 0)
    with use_backend(backend):
        o, l = sparse_attention(q, k, v, index, offset, queries, keys, window, sinks)
    assert_close(o, want, rtol=1e-10, atol=1e-10)
    scores = (q @ k.repeat_interleave(2, 1).mT / 8**0.5).masked_fill(~seen, -torch.inf)
    assert_close(l, scores.logsumexp(-1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_blocks_are_full_attention(backend):
    q, k, v = draw(T=45)
    index = torch.arange(23).expand(2, 1, 12, -1)
    with use_backend(backend):
        o, l = sparse_attention(q, k, v, index, torch.zeros(2, dtype=torch.long), 4, 2, 7, 3)
    want = block_attention(q, k, v, None, 0)
    assert_close((o, l), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_seen_is_zero(backend):
    q, k, v = draw(T=4)
    with use_backend(backend):
        o, l = sparse_attention(q, k, v, torch.full((2, 1, 4, 2), -1))
    assert o.abs().sum() == 0
    assert bool((l == -torch.inf).all())


def test_gradients_flow_where_it_looks():
    q, k, v = (x.requires_grad_() for x in draw(T=9, S=9))
    index = torch.zeros(2, 1, 9, 1, dtype=torch.long)
    sparse_attention(q, k, v, index, torch.zeros(2, dtype=torch.long))[0].square().sum().backward()
    assert bool((v.grad[:, :, 0] != 0).any())
    assert v.grad[:, :, 1:].abs().sum() == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": 3, "offset_B": None}, "a window needs"),
        ({"queries": 2}, "the lists"),
        ({"keys": 0}, "must be positive"),
        ({"offset_B": torch.zeros(3, dtype=torch.long)}, "offset_B"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    q, k, v = draw(T=5)
    given = {"offset_B": torch.zeros(2, dtype=torch.long)} | change
    with use_backend("reference"), pytest.raises(ConfigError, match=said):
        sparse_attention(q, k, v, torch.zeros(2, 1, 5, 1, dtype=torch.long), **given)
