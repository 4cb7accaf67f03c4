"""Softmax attention over a block of keys, with the log-sum-exp that lets blocks be merged.

    s_ij = scale * q_i . k_j + b_ij       l_i = log sum_j exp(s_ij)       o_i = sum_j exp(s_ij - l_i) v_j

A query that sees no key has o = 0 and l = -inf, and passes no gradient. Blocks of keys merge by
l = logaddexp(l1, l2), o = o1 exp(l1 - l) + o2 exp(l2 - l); the gradient flows through l too. The backward kernel
takes the o and l of the *whole* row, so it can be called block by block.

What a query sees is the intersection of
    offset      causal: query t sees the keys s <= t + offset (offset = position of query 0, counted from key 0)
    window      with offset: only the last ``window`` of them; 0 = all
    mask        bool (B|1, H|1, T, S): True = seen; floating (B|1, H|1, T, S): added to the scores, -inf = not seen;
                integer (B|1, T, 2): first key seen and first key no longer seen (key lengths, packed segments)

Shapes: B batch, H query heads, G key heads (H = G * R, head h reads key head h // R), T queries, S keys, K key
width, V value width. l is float32 or wider; o has the dtype of q and is laid out as (B, T, H, V) in memory.
Source: Dao et al., "FlashAttention", 2022, arXiv:2205.14135, section 3.1 and appendix B.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.block_attention._visible import bias, is_span, visible


@kernel
def block_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSV: Tensor,
    mask: Tensor | None = None,
    offset: int | None = None,
    window: int = 0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return o (B, H, T, V) and the log-sum-exp (B, H, T). ``scale`` None = 1 / sqrt(K)."""
    s_BGRTS, v_BGSV = _scores(q_BHTK, k_BGSK, v_BGSV, mask, offset, window, scale)
    top_BGRT1 = s_BGRTS.amax(-1, keepdim=True).detach()
    e_BGRTS = torch.exp(s_BGRTS - torch.where(top_BGRT1 > -torch.inf, top_BGRT1, 0))
    sum_BGRT1 = e_BGRTS.sum(-1, keepdim=True)
    sees_BGRT1 = sum_BGRT1 > 0
    safe_BGRT1 = torch.where(sees_BGRT1, sum_BGRT1, 1)
    o_BTGRV = torch.einsum("bgrts,bgsv->btgrv", e_BGRTS / safe_BGRT1, v_BGSV)
    l_BGRT1 = torch.where(sees_BGRT1, top_BGRT1 + safe_BGRT1.log(), -torch.inf)
    o_BHTV = o_BTGRV.flatten(2, 3).to(q_BHTK.dtype).transpose(1, 2)
    return _timewise(o_BHTV), l_BGRT1.squeeze(-1).flatten(1, 2)


@kernel
def block_attention_backward(
    do_BHTV: Tensor,
    dl_BHT: Tensor | None,
    o_BHTV: Tensor,
    l_BHT: Tensor,
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSV: Tensor,
    mask: Tensor | None = None,
    offset: int | None = None,
    window: int = 0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from one block of keys, given o and the log-sum-exp over all blocks."""
    (B, H, T, K), G, S = q_BHTK.shape, k_BGSK.shape[1], k_BGSK.shape[2]
    scale = K**-0.5 if scale is None else scale
    s_BGRTS, v_BGSV_ = _scores(q_BHTK, k_BGSK, v_BGSV, mask, offset, window, scale)
    q, do, o = (_grouped(x, G, s_BGRTS.dtype) for x in (q_BHTK, do_BHTV, o_BHTV))
    l_BGRT1 = _grouped(l_BHT[..., None], G, s_BGRTS.dtype)
    sees_BGRT1 = l_BGRT1 > -torch.inf
    p_BGRTS = torch.exp(s_BGRTS - torch.where(sees_BGRT1, l_BGRT1, 0)) * sees_BGRT1
    delta_BGRT1 = (do * o).sum(-1, keepdim=True)
    if dl_BHT is not None:
        delta_BGRT1 = delta_BGRT1 - torch.where(sees_BGRT1, _grouped(dl_BHT[..., None], G, s_BGRTS.dtype), 0)
    dp_BGRTS = torch.einsum("bgrtv,bgsv->bgrts", do, v_BGSV_)
    ds_BGRTS = p_BGRTS * (dp_BGRTS - delta_BGRT1) * scale
    dv_BGSV = torch.einsum("bgrts,bgrtv->bgsv", p_BGRTS, do)[:, :, :S]
    dk_BGSK = torch.einsum("bgrts,bgrtk->bgsk", ds_BGRTS, q)[:, :, :S]
    dq_BGRTK = torch.einsum("bgrts,bgsk->bgrtk", ds_BGRTS[..., :S], k_BGSK.to(s_BGRTS.dtype))
    dq_BHTK = dq_BGRTK.reshape(B, H, T, K).to(q_BHTK.dtype)
    return _timewise(dq_BHTK), _timewise(dk_BGSK.to(k_BGSK.dtype)), _timewise(dv_BGSV.to(v_BGSV.dtype))


def _scores(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, offset: int | None, window: int, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Scores (B, G, R, T, S), -inf where unseen, and the values, in float32 or wider; S is at least 1."""
    T, (G, S, K) = q.shape[2], k.shape[1:]
    scale = K**-0.5 if scale is None else scale
    wide = torch.promote_types(q.dtype, torch.float32)
    seen = visible((0, T), (0, S), mask, offset, window, like=q)
    if S == 0:  # one key that nobody sees keeps every reduction below defined and every gradient connected
        k, v = (torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (k, v))
        seen, mask = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=q.device), None
    s_BGRTS = torch.einsum("bgrtk,bgsk->bgrts", _grouped(q, G, wide) * scale, k.to(wide))
    extra = bias((0, T), (0, S), mask)
    if extra is not None:
        s_BGRTS = s_BGRTS + _by_group(extra, G)
    if seen is not None:
        s_BGRTS = s_BGRTS.masked_fill(~_by_group(seen, G), -torch.inf)
    return s_BGRTS, v.to(wide)


def _timewise(x_BHTV: Tensor) -> Tensor:
    """Laid out as (B, T, H, V) in memory: what projections make and read."""
    return x_BHTV.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def _grouped(x_BHTK: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    return x_BHTK.to(dtype).unflatten(1, (groups, -1))


def _by_group(mask_BHTS: Tensor, groups: int) -> Tensor:
    """(B|1, H|1, T, S) -> (B|1, G|1, R|1, T, S)."""
    return mask_BHTS[:, None] if mask_BHTS.shape[1] == 1 else mask_BHTS.unflatten(1, (groups, -1))


@block_attention.shapes
def shapes(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    B, H, T, _ = q.shape
    o_BTHV = q.new_empty(B, T, H, v.shape[3])
    return o_BTHV.transpose(1, 2), q.new_empty(B, H, T, dtype=torch.promote_types(q.dtype, torch.float32))


@block_attention_backward.shapes
def backward_shapes(
    do: Tensor, dl: Tensor | None, o: Tensor, l: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v))
    return dq, dk, dv


@block_attention.vjp
def backward(
    grads: tuple[Tensor, ...], inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The second kernel, which has no backward of its own: where one is wanted, its reference is differentiated."""
    return (*block_attention_backward(*grads, *outputs, *inputs), None, None, None, None)


@block_attention.cost
def cost(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    offset: int | None,
    window: int,
    scale: float | None,
) -> Cost:
    """Two products for every pair of a query and a key that it sees."""
    return Cost(_pairs(q, k, mask, offset, window) * (q.shape[3] + v.shape[3]), _bytes(q, k, v, q))


@block_attention_backward.cost
def backward_cost(do: Tensor, dl: Tensor | None, o: Tensor, l: Tensor, *inputs: Any) -> Cost:
    """Five products a pair: the scores again, and the gradients of scores, queries, keys and values."""
    q, k, v, mask, offset, window, _ = inputs
    macs = _pairs(q, k, mask, offset, window) * (3 * q.shape[3] + 2 * v.shape[3])
    return Cost(macs, _bytes(do, o, l, q, q, k, k, v, v))


def _pairs(q: Tensor, k: Tensor, mask: Tensor | None, offset: int | None, window: int) -> int:
    (B, H, T, _), S = q.shape, k.shape[2]
    if mask is not None:
        seen = visible((0, T), (0, S), mask, offset, window, like=q)
        return 0 if seen is None else int(seen.expand(B, H, T, S).sum())
    return B * H * seen_pairs(T, S, offset, window)


def seen_pairs(T: int, S: int, offset: int | None, window: int) -> int:
    """Pairs of a query and a key that it sees, without a mask."""
    if offset is None:
        return T * S
    edges = (t + offset + 1 for t in range(T))
    return sum(max(min(edge, S) - max(edge - window if window else 0, 0), 0) for edge in edges)


def _bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


@block_attention.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Every form of mask, offsets on both sides of 0, shared key heads, unequal widths, one query."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=dtype)

    def qkv(B: int, H: int, G: int, T: int, S: int, K: int, V: int) -> tuple[Tensor, Tensor, Tensor]:
        return draw(B, H, T, K), draw(B, G, S, K), draw(B, G, S, V)

    yield (*qkv(1, 2, 1, 0, 2, 2, 2), None, 0)
    yield (*qkv(2, 4, 2, 3, 5, 4, 3), None, 2, 3)
    yield (*qkv(1, 2, 2, 2, 0, 2, 3),)
    yield (*qkv(1, 1, 1, 1, 1, 2, 2), None, 0)
    yield (*qkv(2, 2, 2, 5, 4, 3, 3), None, -2)
    yield (*qkv(1, 2, 1, 7, 7, 4, 6), None, None, 0, 0.5)
    tree_BHTS = torch.rand(2, 1, 6, 9, generator=rng) < 0.5
    tree_BHTS[0, 0, 2] = False
    yield (*qkv(2, 4, 2, 6, 9, 5, 5), tree_BHTS)
    first_BT = torch.randint(0, 8, (2, 11), generator=rng)
    span_BT2 = torch.stack([first_BT, first_BT + torch.randint(0, 5, (2, 11), generator=rng)], -1)
    yield (*qkv(2, 2, 1, 11, 11, 4, 4), span_BT2, 0)
    yield (*qkv(1, 4, 2, 300, 310, 8, 8), None, 10, 37)
    yield (*qkv(2, 4, 4, 512, 512, 32, 32), None, 0)


@block_attention_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """The cases of the forward, with its outputs and random gradients."""
    for case in examples(rng, dtype):
        o_BHTV, l_BHT = block_attention.reference(*case)
        do_BHTV = torch.randn(o_BHTV.shape, generator=rng, dtype=dtype)
        yield (do_BHTV, torch.randn(l_BHT.shape, generator=rng, dtype=dtype), o_BHTV, l_BHT, *case)


__all__ = ["block_attention", "block_attention_backward", "is_span", "seen_pairs", "visible"]
