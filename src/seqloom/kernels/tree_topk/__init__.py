"""The key blocks that matter to a block of queries, found by a beam search over halves of the past.

    groups <- the past, cut into ``beam`` equal parts
    until every group is one block:     halve each group;  keep the ``beam`` halves of the largest score
    score of a group = max over the queries of q . k, k being the key in its middle

It finds what a full search would where scores change slowly from block to block, and reads 2 beam log2(blocks / beam)
keys instead of all. Nobody looks ahead: a query does not score a key that comes after it, and a group without a key
that it may see is never kept. Where no more than ``beam`` blocks are visible, all of them are the result.

Shapes: B batch, H query heads, G key heads (their H / G queries search together), T queries, S keys, K width,
Q blocks of queries, N key blocks.
Source: Lee et al., "A training-free sub-quadratic cost transformer model serving framework with hierarchically pruned
attention", 2024, arXiv:2406.09827, section 3. Written from the paper.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel


@kernel
def tree_topk(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    offset_B: Tensor,
    beam: int,
    queries: int = 1,
    keys: int = 1,
    stride: int = 1,
) -> Tensor:
    """Return numbers of key blocks (B, G, Q, beam), ascending, -1 where there are fewer.

    This body is the meaning; backends search many lists at once.

    Args:
        q_BHTK: queries.
        k_BGSK: keys; keys beyond a row's last position are never read.
        offset_B: position of each row's first query.
        beam: blocks of a list.
        queries: queries that share a list.
        keys: keys of a block.
        stride: every how many-th query of a block takes part in the search, counted from its last one.
    """
    wrong = mismatch(q_BHTK, k_BGSK, offset_B, beam, queries, keys, stride)
    if wrong is not None:
        raise ConfigError(f"tree_topk: {wrong}")
    check_offset(offset_B)
    (B, _, T, _), G, S = q_BHTK.shape, k_BGSK.shape[1], k_BGSK.shape[2]
    found = torch.full((B, G, -(-T // queries), beam), -1, dtype=torch.long, device=q_BHTK.device)
    q_BGRTK = q_BHTK.unflatten(1, (G, -1)).detach()
    for b in range(B):
        for block in range(found.shape[2]):
            rows = _asked(block, T, queries, stride)
            at = [int(offset_B[b]) + t for t in rows]
            visible = min(at[-1] + 1, S)
            for g in range(G):
                kept = _search(q_BGRTK[b, g][:, rows], k_BGSK[b, g].detach(), at, -(-visible // keys), beam, keys)
                found[b, g, block, : len(kept)] = torch.tensor(sorted(kept), device=found.device)
    return found


def _search(q_RTK: Tensor, k_SK: Tensor, at: list[int], blocks: int, beam: int, keys: int) -> list[int]:
    """Blocks of one list."""
    parts = max(0, min(beam, blocks))
    groups = [(i * blocks // parts, (i + 1) * blocks // parts) for i in range(parts)]
    while any(stop - start > 1 for start, stop in groups):
        halves = []
        for start, stop in groups:
            middle = start + (stop - start + 1) // 2
            halves += [(start, middle), (middle, stop)]
        halves = [half for half in halves if half[0] < half[1]]
        middles = [min((start + stop) * keys // 2, at[-1], len(k_SK) - 1) for start, stop in halves]
        scores = [_score(q_RTK, k_SK[middle], at, middle) for middle in middles]
        order = sorted(range(len(halves)), key=lambda i: (-scores[i], halves[i]))
        groups = sorted(halves[i] for i in order[:beam])
    return [start for start, _ in groups]


def _score(q_RTK: Tensor, k_K: Tensor, at: list[int], where: int) -> float:
    """Largest product of the key and a query that may see it."""
    sees = [row for row, position in enumerate(at) if position >= where]
    return float((q_RTK[:, sees] @ k_K).max())


def _asked(block: int, T: int, queries: int, stride: int) -> list[int]:
    """Queries of a block that take part, ascending; the last one always does."""
    last = min((block + 1) * queries, T) - 1
    return list(range(last, block * queries - 1, -stride))[::-1]


@tree_topk.shapes
def shapes(
    q: Tensor, k: Tensor, offset_B: Tensor, beam: int, queries: int = 1, keys: int = 1, stride: int = 1
) -> Tensor:
    return q.new_empty(q.shape[0], k.shape[1], -(-q.shape[2] // queries), beam, dtype=torch.long)


@tree_topk.vjp(inputs=(), outputs=())
def backward(grads: tuple[Tensor, ...], inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[None, ...]:
    """Numbers of blocks have no derivative; queries that want one are searched by a backend all the same."""
    return (None,) * len(inputs)


@tree_topk.cost
def cost(q: Tensor, k: Tensor, offset_B: Tensor, beam: int, queries: int = 1, keys: int = 1, stride: int = 1) -> Cost:
    """Every score of every round: ``evaluations`` times the width."""
    macs = evaluations(q.shape[1], q.shape[2], offset_B.tolist(), beam, queries, keys, stride) * q.shape[3]
    return Cost(macs, q.nbytes + k.nbytes + q.shape[0] * k.shape[1] * -(-q.shape[2] // queries) * beam * 8)


def evaluations(
    heads: int, length: int, offsets: list[int], beam: int, queries: int = 1, keys: int = 1, stride: int = 1
) -> int:
    """Products of a query and a key that the search computes: at most 2 beam a round and query that takes part."""
    found = 0
    for offset in offsets:
        for block in range(-(-length // queries)):
            rows = _asked(block, length, queries, stride)
            blocks = -(-(offset + rows[-1] + 1) // keys)
            found += heads * len(rows) * _halves(blocks, beam)
    return found


def _halves(blocks: int, beam: int) -> int:
    """Halves that one search scores: those that are not empty, were every group as long as the longest kept one."""
    if blocks <= beam or beam < 1:
        return 0
    found, longest, groups = 0, -(-blocks // beam), blocks
    while longest > 1:
        found += min(2 * beam, groups)
        longest = -(-longest // 2)
        groups = beam * longest
    return found


@tree_topk.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """No query, fewer blocks than the beam, parts that do not divide, shared lists, rows at different positions."""

    def given(B: int, H: int, G: int, T: int, S: int, K: int, *offset: int) -> tuple[Tensor, ...]:
        q, k = (torch.randn(B, n, m, K, generator=rng, dtype=dtype) for n, m in ((H, T), (G, S)))
        return q, k, torch.tensor(offset)

    yield (*given(1, 1, 1, 1, 1, 2, 0), 2)
    yield (*given(2, 4, 2, 3, 19, 4, 16, 7), 3, 2, 1, 2)
    yield (*given(1, 2, 1, 0, 4, 2, 0), 2)
    yield (*given(1, 2, 2, 5, 5, 3, 0), 2, 2, 2)
    yield (*given(2, 2, 2, 9, 41, 3, 32, 20), 4, 4, 3, 3)
    yield (*given(1, 4, 2, 1, 97, 5, 96), 5)


def mismatch(q: Tensor, k: Tensor, offset_B: Tensor, beam: int, queries: int, keys: int, stride: int) -> str | None:
    """What does not fit, in words; None where all does."""
    if min(beam, queries, keys, stride) < 1:
        return f"beam {beam}, queries {queries}, keys {keys} and stride {stride} must be at least 1"
    fits = q.ndim == k.ndim == 4 and k.shape[1] and len(q) == len(k)
    if not fits or q.shape[1] % k.shape[1] or q.shape[3] != k.shape[3]:
        return f"queries {tuple(q.shape)} and keys {tuple(k.shape)} do not fit"
    if offset_B.shape != (len(q),):
        return f"offset_B {tuple(offset_B.shape)} should be ({len(q)},)"
    return None


def check_offset(offset_B: Tensor) -> None:
    """ConfigError where a query has no key; looked at on a processor alone, as a device would have to be waited for."""
    if offset_B.numel() and not offset_B.is_cuda and int(offset_B.min()) < 0:
        raise ConfigError(
            f"tree_topk: a query stands at position {int(offset_B.min())}: every query needs a key, its own"
        )
