"""All lists of a few blocks of queries at once: halves are tensors, a round is one batched product and one sort.

Shapes: B batch, G key heads, C lists, N halves (2 beam), R heads and queries that search together.
"""

from typing import Any

import torch
from torch import Tensor

from seqloom.kernels.tree_topk import check_offset, mismatch

ROOM = 1 << 22
"""Elements of gathered keys at a time."""


def refuses(*inputs: Any) -> str | None:
    q, k = inputs[:2]
    wrong = mismatch(*inputs)
    if wrong is not None:
        return wrong
    if 0 in q.shape or 0 in k.shape:
        return "nothing to search"
    return None if q.dtype == k.dtype and q.dtype.is_floating_point else f"no search of {q.dtype} and {k.dtype}"


def forward(
    q: Tensor, k: Tensor, offset_B: Tensor, beam: int, queries: int = 1, keys: int = 1, stride: int = 1
) -> Tensor:
    check_offset(offset_B)
    (B, _, T, K), (G, S) = q.shape, k.shape[1:3]
    blocks = -(-T // queries)
    found = torch.empty(B, G, blocks, beam, dtype=torch.long, device=q.device)
    step = max(1, ROOM // (B * G * 2 * beam * K))
    asked_QR = _asked(T, queries, stride, q.device)
    k_FK = k.reshape(B * G * S, K)
    for first in range(0, blocks, step):
        rows_CR = asked_QR[first : first + step]
        at_BCR = torch.where(rows_CR < 0, -1, offset_B[:, None, None] + rows_CR)
        q_BGCRK = q.unflatten(1, (G, -1))[:, :, :, rows_CR.clamp_min(0)].permute(0, 1, 3, 2, 4, 5)
        found[:, :, first : first + step] = _search(q_BGCRK, k_FK, at_BCR, S, beam, keys)
    return found


def _asked(T: int, queries: int, stride: int, device: torch.device) -> Tensor:
    """Queries of each block that take part (Q, R), -1 where the last block is short."""
    begin_Q1 = torch.arange(0, T, queries, device=device)[:, None]
    last_Q1 = (begin_Q1 + queries).clamp_max(T) - 1
    row_QR = last_Q1 - torch.arange(0, queries, stride, device=device)
    return torch.where(row_QR < begin_Q1, -1, row_QR)


def _search(q_BGCHRK: Tensor, k_FK: Tensor, at_BCR: Tensor, S: int, beam: int, keys: int) -> Tensor:
    B, G, C, _, _, K = q_BGCHRK.shape
    q_BGCXK = q_BGCHRK.flatten(3, 4)
    heads = q_BGCHRK.shape[3]
    at_B1CX1 = at_BCR[:, None, :, None].expand(-1, -1, -1, heads, -1).flatten(3)[..., None]
    count_BC1 = ((at_BCR.amax(2) + 1).clamp_max(S) + keys - 1).div(keys, rounding_mode="floor")[..., None]
    parts_BC1 = count_BC1.clamp_max(beam)
    number = torch.arange(beam, device=k_FK.device)
    safe = parts_BC1.clamp_min(1)
    edges = [((number + more) * count_BC1).div(safe, rounding_mode="floor") for more in (0, 1)]
    edges = [torch.where(number < parts_BC1, edge, S) for edge in edges]  # no group: behind everything, and empty
    start, stop = (edge[:, None].expand(B, G, C, beam).contiguous() for edge in edges)
    base = (torch.arange(B * G, device=k_FK.device) * S).view(B, G, 1, 1)
    last_BC1 = at_BCR.amax(2).clamp_max(S - 1)[:, None, :, None]
    for _ in range((int(count_BC1.max()) - 1).bit_length() + 1):
        if not bool((stop - start > 1).any()):
            break
        middle = start + (stop - start + 1).div(2, rounding_mode="floor")
        begin, end = torch.stack([start, middle], -1).flatten(3), torch.stack([middle, stop], -1).flatten(3)
        where = torch.minimum(((begin + end) * keys).div(2, rounding_mode="floor"), last_BC1)
        taken = k_FK[(where + base).flatten()].view(B, G, C, -1, K)
        s = q_BGCXK @ taken.transpose(3, 4)
        score = s.masked_fill(where[..., None, :] > at_B1CX1, -torch.inf).amax(3)
        empty = begin >= end  # sorted by start, so that a stable sort prefers the smaller one, and empty ones come last
        order = torch.where(empty, S, begin).argsort(dim=-1, stable=True)
        begin, end, score, empty = (x.gather(3, order) for x in (begin, end, score, empty))
        best = _first(score, empty, beam)
        start, stop = begin.gather(3, best), end.gather(3, best)
        again = torch.where(start >= stop, S, start).argsort(dim=-1, stable=True)
        start, stop = start.gather(3, again), stop.gather(3, again)
    return torch.where(start < stop, start, -1)


def _first(score: Tensor, empty: Tensor, beam: int) -> Tensor:
    """Places of the ``beam`` best; what is empty comes after everything else, even after what scores nothing."""
    by_score = score.argsort(dim=-1, descending=True, stable=True)
    kept_last = empty.gather(3, by_score).long().argsort(dim=-1, stable=True)
    return by_score.gather(3, kept_last)[..., :beam]


FORWARDS = {"tree_topk": forward}
