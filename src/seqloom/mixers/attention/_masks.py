"""Layouts in the terms of the attention kernel: which slots of the cache each new position sees.

New column t of row b lies in slot before_b + t, behind the row's earlier positions.

Shapes: B batch, T new columns, S slots.
"""

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout, hidden


def segment_bounds(layout: Layout, before_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """First slot of each column's segment, and the first slot behind it (B, T)."""
    column_T = torch.arange(length, device=before_B.device)
    width_B = torch.full_like(before_B, length) if layout.lengths_B is None else layout.lengths_B
    end_BT = width_B[:, None].expand(-1, length)
    if layout.starts_BT is None:
        return torch.zeros_like(end_BT), before_B[:, None] + end_BT
    begin_BT = torch.where(layout.starts_BT, column_T, -1).cummax(1).values
    first_BT = torch.where(begin_BT < 0, 0, before_B[:, None] + begin_BT)
    next_BT = torch.where(layout.starts_BT, column_T, length)[:, 1:]
    next_BT = torch.cat([next_BT, next_BT.new_full((len(next_BT), 1), length)], 1)
    next_BT = next_BT.flip(1).cummin(1).values.flip(1)
    return first_BT, before_B[:, None] + torch.minimum(next_BT, end_BT)


def span(first_BT: Tensor, stop_BT: Tensor, before_B: Tensor, window: int, *, causal: bool) -> Tensor:
    """Slots that each column sees, as an interval (B, T, 2): its segment, cut by causality and the window."""
    at_BT = before_B[:, None] + torch.arange(first_BT.shape[1], device=before_B.device)
    if causal:
        stop_BT = at_BT + 1
    elif window:
        stop_BT = torch.minimum(stop_BT, at_BT + window)
    if window:
        first_BT = torch.maximum(first_BT, at_BT + 1 - window)
    return torch.stack([first_BT, stop_BT], -1)


def tree_mask(layout: Layout, before_B: Tensor, slots: int, parts_BS: Tensor | None) -> Tensor:
    """Slots that each column sees (B, 1, T, S): the past, its ancestors, and no other part of a prompt's set."""
    if layout.starts_BT is not None and layout.parents_BT is not None:
        raise ConfigError("Attention cannot honour layout.parents_BT together with starts_BT: unpack the rows")
    given = layout.parents_BT if layout.parents_BT is not None else layout.parts_BT
    if given is None:
        raise ConfigError("this layout holds neither a tree nor parts")
    length = given.shape[1]
    slot_S = torch.arange(slots, device=before_B.device)
    column_BS = slot_S - before_B[:, None]
    if layout.parents_BT is not None:
        index_BTS = column_BS.clamp(0, length - 1)[:, None].expand(-1, length, -1)
        seen_BTS = layout.ancestors_BTT().gather(2, index_BTS) & (column_BS < length)[:, None]
        seen_BTS = seen_BTS | (column_BS < 0)[:, None]
    else:
        first_BT, stop_BT = segment_bounds(layout, before_B, length)
        bounds_BT2 = span(first_BT, stop_BT, before_B, 0, causal=True)
        seen_BTS = (slot_S >= bounds_BT2[..., :1]) & (slot_S < bounds_BT2[..., 1:])
    if layout.parts_BT is not None:
        own_BT1 = layout.parts_BT[..., None]
        other_B1S = (layout.parts_BT if parts_BS is None else parts_BS[:, :slots])[:, None]
        seen_BTS = seen_BTS & ~hidden(own_BT1, other_B1S)
    return seen_BTS[:, None]
