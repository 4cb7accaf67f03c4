"""Which keys a query may see, for any block of queries and keys: written once for the reference and the backends."""

from torch import Tensor, arange, inf

Block = tuple[int, int]


def visible(
    rows: Block, columns: Block, mask: Tensor | None, offset: int | None, window: int, *, like: Tensor
) -> Tensor | None:
    """True where a query of ``rows`` sees a key of ``columns``; broadcasts to (B, H, t, s). None = everywhere."""
    seen = None
    s_S = arange(*columns, device=like.device)
    if offset is not None:
        edge_T1 = arange(*rows, device=like.device)[:, None] + offset
        seen = s_S <= edge_T1
        if window:
            seen = seen & (s_S > edge_T1 - window)
        seen = seen[None, None]
    if mask is None:
        return seen
    if is_span(mask):
        span_BT2 = mask[:, rows[0] : rows[1]]
        given = ((s_S >= span_BT2[..., :1]) & (s_S < span_BT2[..., 1:]))[:, None]
    else:
        given = mask[..., rows[0] : rows[1], columns[0] : columns[1]]
        if mask.is_floating_point():
            given = given > -inf
    return given if seen is None else seen & given


def is_span(mask: Tensor | None) -> bool:
    """Whether the mask gives an interval of keys a query."""
    return mask is not None and mask.ndim == 3


def bias(rows: Block, columns: Block, mask: Tensor | None) -> Tensor | None:
    """What is added to the scores of a block: the block of a floating mask."""
    if mask is None or not mask.is_floating_point():
        return None
    return mask[..., rows[0] : rows[1], columns[0] : columns[1]]


def reach(rows: Block, keys: int, mask: Tensor | None, offset: int | None, window: int) -> Block:
    """The smallest block of keys outside which the queries of ``rows`` certainly see nothing."""
    first, stop = 0, keys
    if offset is not None:
        stop = min(stop, rows[1] + offset)
        first = max(first, rows[0] + offset + 1 - window) if window else first
    if mask is not None and is_span(mask):
        span_BT2 = mask[:, rows[0] : rows[1]]
        first, stop = max(first, int(span_BT2[..., 0].min())), min(stop, int(span_BT2[..., 1].max()))
    return first, max(first, stop)
