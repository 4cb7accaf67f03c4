"""Examples and batches: what data, objectives, models and decoders hand to each other.

Shapes: B rows, T time, C channels.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from seqloom.core.layout import PLAIN, Layout


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sequence on its way to a batch; corruptions return a changed copy and carry the labels along."""

    index: int
    """Its number in the data set: the key of its random numbers and of its results."""
    tokens: np.ndarray
    """Ids (T,) without bos and eos, or an empty array where there are only values."""
    values: np.ndarray | None = None
    """Real channels (T, C), aligned with the tokens."""
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    """Arrays of length T that move with the tokens."""
    target: int | float | np.ndarray | None = None
    """What the whole sequence is labelled with."""
    context: "Example | None" = None
    """Another sequence that this one is conditioned on."""
    opens: bool = True
    """False where the example continues an earlier one (a window of a stream): no bos stands before it."""
    closes: bool = True
    """False where it goes on after its last token: no eos stands behind it."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows ready for a model. ``weights`` is the only loss mask; targets are already shifted."""

    tokens_BT: Tensor | None = None
    values_BTC: Tensor | None = None
    targets: Tensor | None = None
    """(B, T) next ids, (B,) classes, or what the objective needs."""
    weights: Tensor | None = None
    """Float, of the shape of the loss's terms: 0 where nothing is to be learnt."""
    layout: Layout = PLAIN
    context: "Batch | None" = None
    index_B: Tensor | None = None
    """Numbers of the examples; with packed rows, of each row's first."""
    rollouts: "Batch | None" = None
    """Samples of the current model, where the objective asks for them."""

    def __len__(self) -> int:
        """Rows."""
        first = self.tokens_BT if self.tokens_BT is not None else self.values_BTC
        if first is None:
            first = self.index_B
        return 0 if first is None else len(first)

    @property
    def tokens(self) -> Tensor:
        """The tokens, where the batch has them."""
        if self.tokens_BT is None:
            raise ValueError("this batch has no tokens")
        return self.tokens_BT

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name in ("tokens_BT", "values_BTC", "targets", "weights", "index_B")
            if (value := getattr(self, name)) is not None
        }
        fields = ("lengths_B", "starts_BT", "positions_BT", "parents_BT", "parts_BT")
        layout = {n: v.to(device, non_blocking=True) for n in fields if (v := getattr(self.layout, n)) is not None}
        context = None if self.context is None else self.context.to(device)
        rollouts = None if self.rollouts is None else self.rollouts.to(device)
        return replace(self, **moved, layout=replace(self.layout, **layout), context=context, rollouts=rollouts)
