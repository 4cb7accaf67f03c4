"""One vector and one class a sequence, over any mixer.

    h_0 = embed(tokens)     h_L = backbone(h_0)     pooled = mean or last over valid t     logits = W pooled + b

Shapes: B batch, T time, D width, S segments (packed rows give one vector a segment, in order of rows and columns).
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout, segments, unfold
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.core.state import State
from seqloom.models._base import Model
from seqloom.models._input import Input
from seqloom.models.backbone import Backbone


class Encoder(Model):
    """Classification and embedding of whole sequences."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Ends of the model."""

        backbone: Backbone.Config = field(default_factory=Backbone.Config)
        """The stack between embedding and pooling."""
        pool: Literal["mean", "last", "max"] = "mean"
        """How positions become one vector."""
        positions: int = 0
        """Learned absolute positions up to this length; 0 = none."""
        dropout: float = 0.0
        """Rate on the embedding and on the pooled vector."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """With ``sizes.classes`` = 0 there is no head, and no ``logits``."""
        super().__init__(sizes, config)
        width = self.config.backbone.width
        self.input = Input(sizes, width, self.config.positions, self.config.dropout)
        self.backbone: Backbone = self.config.backbone.build()
        self.drop = nn.Dropout(self.config.dropout)
        self.head = nn.Linear(width, sizes.classes) if sizes.classes else None

    def forward(
        self,
        tokens_BT: Tensor | None,
        state: State | None = None,
        *,
        layout: Layout = PLAIN,
        values_BTC: Tensor | None = None,
        context: Batch | None = None,
    ) -> tuple[Outputs, State | None]:
        """Outputs ``hidden``, ``pooled`` (B, D) and, with a head, ``logits`` (B, classes)."""
        if state is not None:
            raise ConfigError("an encoder reads whole sequences: it takes no state")
        self.refuse(context)
        x_BTD = self.input(tokens_BT, layout=layout, before_B=None, values_BTC=values_BTC)
        hidden, _ = self.backbone(x_BTD, layout=layout)
        outputs = Outputs({"hidden": hidden, "pooled": partial(pool, hidden[-1], layout, self.config.pool)})
        if self.head is None:
            return outputs, None
        head = self.head
        return outputs.also({"logits": lambda: head(self.drop(outputs["pooled"]))}), None


def pool(h_BTD: Tensor, layout: Layout, how: Literal["mean", "last", "max"] = "mean") -> Tensor:
    """One vector a row, or a segment where rows are packed; an empty row gives zeros."""
    if layout.starts_BT is not None:
        at = segments(layout, h_BTD.shape[1])
        h_BTD, layout = unfold(h_BTD, at), Layout(lengths_B=at.lengths_S)
    length = h_BTD.shape[1]
    if length == 0:
        return h_BTD.new_zeros(len(h_BTD), h_BTD.shape[2])
    valid_BT = layout.valid_BT(length)
    if valid_BT is None:
        valid_BT = torch.ones(h_BTD.shape[:2], dtype=torch.bool, device=h_BTD.device)
    if how == "mean":
        total_BD = (h_BTD * valid_BT[..., None]).sum(1)
        return total_BD / valid_BT.sum(1, keepdim=True).clamp_min(1)
    if how == "max":
        highest_BD = h_BTD.masked_fill(~valid_BT[..., None], -torch.inf).amax(1)
        return torch.where(valid_BT.any(1, keepdim=True), highest_BD, 0)
    last_B = torch.where(valid_BT, torch.arange(length, device=h_BTD.device), -1).amax(1)
    picked_BD = h_BTD[torch.arange(len(h_BTD), device=h_BTD.device), last_B.clamp_min(0)]
    return torch.where((last_B >= 0)[:, None], picked_BD, 0)
