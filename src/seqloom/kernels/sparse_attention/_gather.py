"""The keys of each list side by side, a few blocks of queries at a time: dense tiles whatever the lists say.

For every block of queries the keys are those of its list, the sinks, and the window of its queries; what stands in two
of these is masked in all but one. Then it is two batched matrix products and a softmax.

Shapes: as in the kernel; R heads that share a list, C blocks of queries at a time, N keys of one block of queries.
"""

from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels.sparse_attention import mismatch, shapes

FAR = 1 << 30
"""Farther than any key."""
ROOM = 1 << 20
"""Elements of gathered keys at a time: 4 MB of float32, which a core's cache holds for the most part."""


def refuses(*inputs: Any) -> str | None:
    q, k, v, index, offset, queries, keys, window, sinks = inputs[:9]
    wrong = mismatch(q, k, index, offset, queries, keys, window, sinks)
    if wrong is not None:
        return wrong
    if index.shape[3] + window + sinks == 0:
        return "nobody sees anything"
    if 0 in q.shape or 0 in k.shape or 0 in v.shape:
        return "nothing to gather"
    if not q.dtype == k.dtype == v.dtype:
        return f"queries, keys and values differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}"
    return None if q.dtype.is_floating_point else f"no attention of {q.dtype}"


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    offset_B: Tensor | None = None,
    queries: int = 1,
    keys: int = 1,
    window: int = 0,
    sinks: int = 0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    (B, _, T, K), (G, S) = q.shape, k.shape[1:3]
    if index.numel() and not index.is_cuda and int(index.max()) * keys >= S:
        raise ConfigError(f"sparse_attention: there is no block {int(index.max())} of {keys} among {S} keys")
    scale = K**-0.5 if scale is None else scale
    wide = torch.promote_types(q.dtype, torch.float32)
    o, l = shapes(q, k, v)
    heads = max(index.shape[1], G)  # lists and keys of one such head belong together
    index = (
        index.expand(B, heads, -1, -1) if index.shape[1] == 1 else index.repeat_interleave(heads // index.shape[1], 1)
    )
    k, v = (x if heads == G else x.repeat_interleave(heads // G, 1) for x in (k, v))
    blocks = -(-T // queries)
    wider = index.shape[3] * keys + sinks + (window + queries - 1 if window else 0)
    step = max(1, ROOM // (B * heads * max(wider, 1) * (K + v.shape[3])))
    q_BIRTK, o_BIRTV, l_BIRT = (x.unflatten(1, (heads, -1)) for x in (q, o, l))
    for first in range(0, blocks, step):
        c = slice(first, min(first + step, blocks))
        t = slice(c.start * queries, min(c.stop * queries, T))
        at_CN, seen = _columns(index[:, :, c], offset_B, c, (T, S), (queries, keys, window, sinks))
        taken_k, taken_v = (_take(x, at_CN).to(wide) for x in (k, v))
        rows = _fold(q_BIRTK[:, :, :, t].to(wide) * scale, queries)
        s = (rows @ taken_k.transpose(3, 4)).unflatten(3, (-1, queries))
        s = torch.where(seen[:, :, :, None], s, -torch.inf)
        top = s.amax(-1, keepdim=True)
        e = torch.exp(s - top.masked_fill(top == -torch.inf, 0))
        total = e.sum(-1, keepdim=True)
        made = (e.flatten(3, 4) @ taken_v).unflatten(3, (-1, queries)) / total.masked_fill(total == 0, 1)
        count = t.stop - t.start
        o_BIRTV[:, :, :, t] = made.permute(0, 1, 3, 2, 4, 5).flatten(3, 4)[:, :, :, :count].to(q.dtype)
        sums = (top + total.log()).squeeze(-1).permute(0, 1, 3, 2, 4).flatten(3, 4)
        l_BIRT[:, :, :, t] = sums[:, :, :, :count]
    return o, l


def _fold(q_BIRTK: Tensor, queries: int) -> Tensor:
    """Blocks of queries with the rows of all heads that share a list (B, I, C, R * queries, K), zeros at the end."""
    short = -q_BIRTK.shape[3] % queries
    if short:
        q_BIRTK = torch.cat([q_BIRTK, q_BIRTK.new_zeros(*q_BIRTK.shape[:3], short, q_BIRTK.shape[4])], 3)
    return q_BIRTK.unflatten(3, (-1, queries)).permute(0, 1, 3, 2, 4, 5).flatten(3, 4)


def _columns(
    index: Tensor, offset_B: Tensor | None, c: slice, sizes: tuple[int, int], options: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor]:
    """Keys of each block of queries (B, I, C, N), and which of them each query sees (B, I, C, queries, N).

    A query sees a column while its distance to it, back in time, lies within the column's bounds: a listed key from the
    window on, a near one within the window, a sink anywhere. What lies nowhere is seen nowhere.
    """
    (_, S), (queries, keys, window, sinks), device = sizes, options, index.device
    listed = (
        (index[..., None] * keys + torch.arange(keys, device=device)).masked_fill(index[..., None] < 0, S).flatten(3)
    )
    first = torch.arange(sinks, device=device).expand(*listed.shape[:3], -1)
    at, least, below = [listed, first], [window] * listed.shape[3] + [0] * sinks, [FAR] * (listed.shape[3] + sinks)
    row_CP = (torch.arange(c.start, c.stop, device=device) * queries)[:, None] + torch.arange(queries, device=device)
    if window and offset_B is not None:
        span = torch.arange(1 - window, queries, device=device)
        near = offset_B[:, None, None] + row_CP[:, :1] + span
        at.append(near[:, None].expand(-1, listed.shape[1], -1, -1))
        least, below = least + [0] * len(span), below + [window] * len(span)
    at_N = torch.cat(at, 3)
    least_N, below_N = (torch.tensor(bound, dtype=torch.int32, device=device) for bound in (least, below))
    sink_N = torch.zeros(len(least), dtype=torch.bool, device=device)
    sink_N[listed.shape[3] : listed.shape[3] + sinks] = True
    shut = (at_N < 0) | (at_N >= S) | ((at_N < sinks) & ~sink_N)  # a sink counts as one, and as nothing else
    below_N = torch.where(shut, -FAR, below_N)[..., None, :]
    if offset_B is None:
        return at_N.clamp(0, S - 1), (below_N > 0).expand(*shut.shape[:3], queries, -1)
    row_BCP = (offset_B[:, None, None] + row_CP)[:, None, :, :, None].int()
    away = row_BCP - at_N[..., None, :].int()
    return at_N.clamp(0, S - 1), (away >= least_N) & (away < below_N)


def _take(x_BISK: Tensor, at_BICN: Tensor) -> Tensor:
    """Rows of the keys (B, I, C, N, K)."""
    B, I, S, K = x_BISK.shape
    base = (torch.arange(B * I, device=x_BISK.device) * S).view(B, I, 1, 1)
    flat = x_BISK.reshape(B * I * S, K)
    return flat.index_select(0, (at_BICN + base).flatten()).view(*at_BICN.shape, K)


FORWARDS = {"sparse_attention": forward}
