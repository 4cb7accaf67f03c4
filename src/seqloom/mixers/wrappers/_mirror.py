"""Rows read from their end, pads left where they are.

    y_t = x_{n-1-t} for t < n, x_t beyond        n = length of the row

Shapes: B batch, T time, D width.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqloom.core.layout import Layout
from seqloom.mixers._base import Mixer, ParamGroup, Traits


def flip(x_BT: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Turn the valid columns of right-padded rows around; its own inverse."""
    if lengths_B is None:
        return x_BT.flip(1)
    column_T = torch.arange(x_BT.shape[1], device=x_BT.device)
    back_BT = lengths_B[:, None] - 1 - column_T
    index_BT = torch.where(back_BT >= 0, back_BT, column_T)
    return x_BT[torch.arange(len(x_BT), device=x_BT.device)[:, None], index_BT]


def flipped(layout: Layout) -> Layout:
    """The layout of the flipped rows: written positions ascend again, over the same range."""
    if layout.positions_BT is None:
        return layout
    back_BT = flip(layout.positions_BT, layout.lengths_B)
    return replace(layout, positions_BT=back_BT[:, :1] + layout.positions_BT[:, :1] - back_BT)


def twice(layout: Layout) -> Layout:
    """One layout for rows and, below them, the same rows flipped."""
    back = flipped(layout)
    pairs = {name: (getattr(layout, name), getattr(back, name)) for name in ("lengths_B", "positions_BT")}
    both: dict[str, Any] = {name: torch.cat(pair) for name, pair in pairs.items() if pair[0] is not None}
    return replace(layout, **both)


def wrapped_traits(inside: Traits) -> Traits:
    """What a mixer can do once it reads rows from both ends."""
    return Traits(
        causal="no",
        step="none",
        rollback="none",
        sequence_comm="forbidden",
        bidirectional="wrapped",
        length_bound=inside.length_bound,
        stochastic=inside.stochastic,
        owns_residual=inside.owns_residual,
    )


def named_groups(name: str, mixer: Mixer) -> list[ParamGroup]:
    """The parameter groups of a mixer that lies under a name."""
    return [
        replace(group, names=tuple(f"{name}.{parameter}" for parameter in group.names))
        for group in mixer.param_groups()
    ]
