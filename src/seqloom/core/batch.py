"""Examples and batches: what data, objectives, models and decoders hand to each other.

Shapes: B rows, T time, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

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

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor: those of the layout, the context and the rollouts too."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = change(value)
            elif isinstance(value, Layout | Batch):
                changed[item.name] = value.map(change)
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def select(self, rows_R: Tensor) -> Self:
        """Rows in a new order; they may be repeated or left out. Every tensor must have one entry a row."""
        return self.map(lambda tensor: tensor.index_select(0, rows_R))
