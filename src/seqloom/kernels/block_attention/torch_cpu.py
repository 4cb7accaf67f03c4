from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels.block_attention._visible import Block, bias, reach, visible

Piece = tuple[Block, Block, Tensor | None, Tensor | None]
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
    if _is_one_call(mask, offset, window, T):
        o, l = _forward(q, k, v, 0.0, offset == 0, scale=scale)
        return _timewise(o, V), l.contiguous()
    o_BHTV = q.new_empty(B, T, H, V).transpose(1, 2)
    l_BHT = q.new_empty(B, H, T, dtype=torch.promote_types(q.dtype, torch.float32))
    for rows, columns, added, blind in _blocks(q, k, mask, offset, window):
        t, s = slice(*rows), slice(*columns)
        if columns[0] == columns[1]:
            o_BHTV[:, :, t], l_BHT[:, :, t] = 0, -torch.inf
            continue
        o, l = _forward(q[:, :, t], k[:, :, s], v[:, :, s], 0.0, False, attn_mask=added, scale=scale)
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
    if _is_one_call(mask, offset, window, q.shape[2]):
        dq, dk, dv = _backward(do, q, k, v, o, l, 0.0, offset == 0, scale=scale)
    else:
        dq, dk, dv = _by_blocks(do, q, k, v, o, l, _blocks(q, k, mask, offset, window), scale)
    return _timewise(dq, K), _timewise(dk, K), _timewise(dv, V)


def _by_blocks(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, l: Tensor, blocks: Iterator[Piece], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.promote_types(q.dtype, torch.float32)  # a key gathers from many blocks
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k, dtype=exact), torch.zeros_like(v, dtype=exact)
    for rows, columns, added, _ in blocks:
        t, s = slice(*rows), slice(*columns)
        if columns[0] == columns[1]:
            continue
        given = (do[:, :, t], q[:, :, t], k[:, :, s], v[:, :, s], o[:, :, t], l[:, :, t])
        dq_t, dk_s, dv_s = _backward(*given, 0.0, False, attn_mask=added, scale=scale)
        dq[:, :, t] = dq_t
        dk[:, :, s] += dk_s
        dv[:, :, s] += dv_s
    return dq, dk.to(k.dtype), dv.to(v.dtype)


FORWARDS = {"block_attention": forward, "block_attention_backward": backward}


def _is_one_call(mask: Tensor | None, offset: int | None, window: int, queries: int) -> bool:
    """Whether aten's own forms will do: all keys, or causal from the same position on."""
    return mask is None and (offset is None or (offset == 0 and (window == 0 or window >= queries)))


def _blocks(q: Tensor, k: Tensor, mask: Tensor | None, offset: int | None, window: int) -> Iterator[Piece]:
    """Queries, the keys they reach, what to add to their scores, and the rows that see nothing."""
    T, S = q.shape[2], k.shape[2]
    for start in range(0, T, QUERIES):
        rows = (start, min(start + QUERIES, T))
        columns = reach(rows, S, mask, offset, window)
        seen = visible(rows, columns, mask, offset, window, like=q)
        if seen is None:
            yield rows, columns, None, None
            continue
        hidden = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
        extra = bias(rows, columns, mask)
        yield rows, columns, hidden if extra is None else hidden + extra.to(q.dtype), ~seen.any(-1)


def _widen(width: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Zero channels at the end, since aten wants keys and values of one width; it also takes channels as adjacent."""
    wide = (x if x.shape[3] == width else pad(x, (0, width - x.shape[3])) for x in tensors)
    return tuple(x if x.stride(3) == 1 else x.contiguous() for x in wide)


def _timewise(x_BHTW: Tensor, width: int) -> Tensor:
    """The first channels, laid out as (B, T, H, width) in memory like the shapes rules promise; aten's mostly are."""
    B, H, T, _ = x_BHTW.shape
    laid_BHTV = x_BHTW.new_empty(B, T, H, width).transpose(1, 2)
    return x_BHTW if x_BHTW.stride() == laid_BHTV.stride() else laid_BHTV.copy_(x_BHTW[..., :width])
