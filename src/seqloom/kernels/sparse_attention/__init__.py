"""Softmax attention over lists of key blocks, the nearest keys, and the first ones.

    o_t = sum over the seen s of softmax_s(scale q_t . k_s) v_s        l_t = log of the softmax's sum

A query sees a key that stands in a block of its list, among the ``window`` last positions, or among the ``sinks`` first
ones; a key for which several hold counts once. Queries share a list in blocks. With ``offset_B`` nobody sees what comes
later: query t of row b stands at position offset_b + t. A query that sees no key has o = 0 and l = -inf.

Shapes: B batch, H query heads, G key heads, I heads of lists (1, G or H), T queries, S keys, Q blocks of queries,
L entries of a list, K key width, V value width.
Source: Child et al., "Generating long sequences with sparse transformers", 2019, arXiv:1904.10509, section 4; Zaheer et
al., "Big Bird", 2020, arXiv:2007.14062; Xiao et al., "Efficient streaming language models with attention sinks", 2023,
arXiv:2309.17453.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.block_attention import block_attention


@kernel
def sparse_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSV: Tensor,
    index_BIQL: Tensor,
    offset_B: Tensor | None = None,
    queries: int = 1,
    keys: int = 1,
    window: int = 0,
    sinks: int = 0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return o (B, H, T, V), in the dtype of q, and the log-sum-exp (B, H, T), in float32 or wider.

    This body is the meaning, dense attention under a mask, and what gradients flow through; backends gather.

    Args:
        q_BHTK: queries.
        k_BGSK: keys; head h reads key head h // (H / G).
        v_BGSV: values.
        index_BIQL: numbers of key blocks, none of them twice in a list; -1 = no entry.
        offset_B: position of each row's first query, which makes the attention causal; None = it is not.
        queries: queries that share a list: query t reads list t // queries.
        keys: keys of a block.
        window: the last positions that a query sees, its own included; needs ``offset_B``.
        sinks: the first keys, which every query sees.
        scale: factor of the scores; None = 1 / sqrt(K).
    """
    wrong = mismatch(q_BHTK, k_BGSK, index_BIQL, offset_B, queries, keys, window, sinks)
    if wrong is not None:
        raise ConfigError(f"sparse_attention: {wrong}")
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    seen_BITS = _listed(index_BIQL, -(-S // keys)).repeat_interleave(keys, 3)[..., :S]
    seen_BITS = seen_BITS.repeat_interleave(queries, 2)[:, :, :T]
    at_S = torch.arange(S, device=q_BHTK.device)
    seen_BITS = seen_BITS | (at_S < sinks)
    if offset_B is not None:
        at_B1T1 = (offset_B[:, None] + torch.arange(T, device=q_BHTK.device))[:, None, :, None]
        seen_BITS = (seen_BITS | (at_S > at_B1T1 - window)) & (at_S <= at_B1T1)
    per_head = q_BHTK.shape[1] // seen_BITS.shape[1] if seen_BITS.shape[1] > 1 else 1
    return block_attention(q_BHTK, k_BGSK, v_BGSV, seen_BITS.repeat_interleave(per_head, 1), None, 0, scale)


@sparse_attention.shapes
def shapes(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    B, H, T, _ = q.shape
    o_BTHV = q.new_empty(B, T, H, v.shape[3])
    return o_BTHV.transpose(1, 2), q.new_empty(B, H, T, dtype=torch.promote_types(q.dtype, torch.float32))


@sparse_attention.cost
def cost(q: Tensor, k: Tensor, v: Tensor, index: Tensor, *rest: Any) -> Cost:
    """Two products for every key of a full list, of the window and the sinks; no more than there are keys."""
    _, _, keys, window, sinks, _ = rest
    B, H, T, K = q.shape
    seen = min(k.shape[2], index.shape[3] * keys + window + sinks)
    least = min(k.shape[2], seen) * k.shape[0] * k.shape[1] * (K + v.shape[3]) * k.itemsize
    return Cost(B * H * T * seen * (K + v.shape[3]), 2 * q.nbytes + index.nbytes + least)


@sparse_attention.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """No query, no key, lists with gaps and without any entry, rows at different positions, grouped heads."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype)

    def qkv(B: int, H: int, G: int, T: int, S: int, K: int, V: int) -> tuple[Tensor, Tensor, Tensor]:
        return draw(B, H, T, K), draw(B, G, S, K), draw(B, G, S, V)

    def lists(B: int, I: int, Q: int, L: int, blocks: int) -> Tensor:
        order = torch.rand(B, I, Q, max(L, blocks), generator=rng).argsort(-1)[..., :L]
        return torch.where(order < blocks, order, -1)

    yield (*qkv(1, 1, 1, 1, 1, 2, 2), torch.zeros(1, 1, 1, 1, dtype=torch.long))
    yield (*qkv(2, 4, 2, 3, 5, 4, 3), lists(2, 2, 2, 2, 3), torch.tensor([2, 0]), 2, 2)
    yield (*qkv(1, 2, 1, 0, 2, 2, 2), lists(1, 1, 0, 1, 2), torch.tensor([0]))
    yield (*qkv(1, 2, 2, 4, 6, 3, 3), torch.full((1, 1, 4, 2), -1), None, 1, 1)
    yield (*qkv(2, 2, 2, 7, 7, 3, 5), lists(2, 2, 2, 1, 4), torch.tensor([0, -3]), 4, 2, 3, 1)
    yield (*qkv(1, 4, 2, 65, 70, 8, 8), lists(1, 4, 9, 3, 18), torch.tensor([5]), 8, 4, 9, 2, 0.3)
    yield (*qkv(2, 2, 1, 9, 33, 4, 4), lists(2, 1, 9, 5, 33), None, 1, 1, 0, 3)


def mismatch(
    q: Tensor, k: Tensor, index: Tensor, offset: Tensor | None, queries: int, keys: int, window: int, sinks: int
) -> str | None:
    """What does not fit, in words; None where all does."""
    if not q.ndim == k.ndim == 4 or len(q) != len(k) or q.shape[3] != k.shape[3]:
        return f"queries {tuple(q.shape)} and keys {tuple(k.shape)} do not fit"
    B, H, T, _ = q.shape
    G = k.shape[1]
    if not G or H % G:
        return f"{G} key heads do not divide {H} query heads"
    if queries < 1 or keys < 1 or window < 0 or sinks < 0:
        return f"queries {queries} and keys {keys} must be positive, window {window} and sinks {sinks} not negative"
    if window and offset is None:
        return "a window needs the positions of the queries (offset_B)"
    lists = (B, -(-T // queries))
    if index.ndim != 4 or (index.shape[0], index.shape[2]) != lists or index.shape[1] not in (1, G, H):
        return f"the lists {tuple(index.shape)} should be {lists[0]} rows, 1, {G} or {H} heads, {lists[1]} blocks"
    return None if offset is None or offset.shape == (B,) else f"offset_B {tuple(offset.shape)} should be ({B},)"


def _listed(index_BIQL: Tensor, blocks: int) -> Tensor:
    """True at the blocks of each list (B, I, Q, blocks)."""
    seen = index_BIQL.new_zeros(*index_BIQL.shape[:3], blocks + 1)
    seen = seen.scatter(3, torch.where(index_BIQL < 0, blocks, index_BIQL), 1)
    return seen[..., :blocks].bool()
