from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels.block_attention._visible import Block, bias, reach, visible

QUERIES = 256  # of one block: as fast as aten's own causal form, and a mask stays small whatever the length

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def refuses(*inputs: Any) -> str | None:
    q, k, v, mask = inputs[-7:-3]
    if 0 in q.shape or 0 in k.shape or 0 in v.shape:
        return "an empty block: aten's attention kills the process on it"
    if q.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        return f"no attention of {q.dtype} in aten"
    if not q.dtype == k.dtype == v.dtype:
        return f"queries, keys and values differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}"
    if isinstance(mask, Tensor) and mask.requires_grad:
        return "aten gives no gradient to an additive mask"
    return None


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    offset: int | None = None,
    window: int = 0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    (B, H, T, K), V = q.shape, v.shape[3]
    scale = K**-0.5 if scale is None else scale
    q, k, v = _widen(max(K, V), q, k, v)
    o_BHTV = q.new_empty(B, T, H, V).transpose(1, 2)
    l_BHT = q.new_empty(B, H, T, dtype=torch.promote_types(q.dtype, torch.float32))
    for rows, columns, causal, added, blind in _blocks(q, k, mask, offset, window):
        t, s = slice(*rows), slice(*columns)
        if columns[0] == columns[1]:
            o_BHTV[:, :, t], l_BHT[:, :, t] = 0, -torch.inf
            continue
        o, l = _forward(q[:, :, t], k[:, :, s], v[:, :, s], 0.0, causal, attn_mask=added, scale=scale)
        o_BHTV[:, :, t] = o[..., :V]
        l_BHT[:, :, t] = l if blind is None else l.masked_fill(blind, -torch.inf)
    return o_BHTV, l_BHT


def backward(
    do: Tensor,
    dl: Tensor | None,
    o: Tensor,
    l: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    offset: int | None = None,
    window: int = 0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    K, V = q.shape[3], v.shape[3]
    scale = K**-0.5 if scale is None else scale
    sees_BHT = l > -torch.inf
    if dl is not None and bool(dl.any()):
        # aten knows no gradient of the log-sum-exp. It enters where sum(do * o) does, with the opposite sign: one
        # more value channel, 0 in v, 1 in do and -dl in o, carries it.
        dl = torch.where(sees_BHT, dl, 0)  # logaddexp of two empty rows has gradient NaN
        o = torch.cat([o, -dl[..., None].to(o.dtype)], -1)
        do = torch.cat([do, torch.ones_like(do[..., :1])], -1)
    width = max(K, do.shape[3])
    q, k, v, o, do = _widen(width, q, k, v, o, do)
    l = torch.where(sees_BHT, l, torch.inf)  # exp(s - inf) = 0: rows without keys pass nothing on
    exact = torch.promote_types(q.dtype, torch.float32)
    dq = q.new_zeros(q.shape)
    dk, dv = k.new_zeros(k.shape, dtype=exact), v.new_zeros(v.shape, dtype=exact)
    for rows, columns, causal, added, _ in _blocks(q, k, mask, offset, window):
        t, s = slice(*rows), slice(*columns)
        if columns[0] == columns[1]:
            continue
        given = (do[:, :, t], q[:, :, t], k[:, :, s], v[:, :, s], o[:, :, t], l[:, :, t])
        dq_t, dk_s, dv_s = _backward(*given, 0.0, causal, attn_mask=added, scale=scale)
        dq[:, :, t] = dq_t
        dk[:, :, s] += dk_s
        dv[:, :, s] += dv_s
    return dq[..., :K].contiguous(), dk[..., :K].to(k.dtype).contiguous(), dv[..., :V].to(v.dtype).contiguous()


FORWARDS = {"block_attention": forward, "block_attention_backward": backward}

Piece = tuple[Block, Block, bool, Tensor | None, Tensor | None]


def _blocks(q: Tensor, k: Tensor, mask: Tensor | None, offset: int | None, window: int) -> Iterator[Piece]:
    """Queries, the keys they reach, whether aten's own causal form will do, what to add, and rows that see nothing."""
    T, S = q.shape[2], k.shape[2]
    if mask is None and (offset is None or (offset == 0 and (window == 0 or window >= T))):
        yield (0, T), (0, S), offset == 0, None, None
        return
    for start in range(0, T, QUERIES):
        rows = (start, min(start + QUERIES, T))
        columns = reach(rows, S, mask, offset, window)
        seen = visible(rows, columns, mask, offset, window, like=q)
        added = bias(rows, columns, mask)
        if seen is None:
            yield rows, columns, False, added, None
            continue
        hidden = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
        added = hidden if added is None else added.to(q.dtype) + hidden
        yield rows, columns, False, added, ~seen.any(-1)


def _widen(width: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Zero channels at the end: aten wants keys and values of one width."""
    return tuple(x if x.shape[3] == width else pad(x, (0, width - x.shape[3])) for x in tensors)
