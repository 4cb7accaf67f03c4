"""Attention that knows no segments, called once a segment: packed rows become rows of their own, with their own keys.

Shapes: B packed rows, R segments, H query heads, G key heads, T columns, S slots, L columns of the longest segment.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from seqloom.core.layout import Layout, fold, segments, unfold

Look = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""q, k, v and the position of each row's first query -> outputs."""


def by_segment(look: Look, q: Tensor, k: Tensor, v: Tensor, before_B: Tensor, layout: Layout) -> Tensor:
    """Outputs (B, H, T, V) where row b's new columns stand behind ``before_b`` slots that it has filled before.

    The first segment of a row may go on from these; every other one sees its own columns alone.
    """
    T, S = q.shape[2], k.shape[2]
    at = segments(layout, T)
    before_R = torch.where(at.continues_S, before_B[at.row_S], 0)
    first_R = torch.where(at.continues_S, 0, before_B[at.row_S] + at.begin_S)
    longest = max(1, int((before_R + at.lengths_S).max()))
    slot_RN = (first_R[:, None] + torch.arange(longest, device=q.device)).clamp_max(max(S - 1, 0))
    q_RLHK = unfold(q.transpose(1, 2), at)
    if q_RLHK.shape[1] == 0:
        return q.new_zeros(*q.shape[:3], v.shape[3])
    k_RGNK, v_RGNV = (x.transpose(1, 2)[at.row_S[:, None], slot_RN].transpose(1, 2) for x in (k, v))
    o_RHLV = look(q_RLHK.transpose(1, 2), k_RGNK, v_RGNV, before_R)
    return fold(o_RHLV.transpose(1, 2), at, (len(q), T)).transpose(1, 2)
