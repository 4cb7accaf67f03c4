"""How symbols and values enter the residual stream; shared by every model.

Shapes: B batch, T time, D width, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes

SMALL = 0.02
"""What a matrix that is the head too can start with: its logits are then nearly even."""


class Input(nn.Module):
    """Sum of the token's embedding, a linear map of its values and, if asked for, a learned position."""

    def __init__(self, sizes: Sizes, width: int, positions: int = 0, rate: float = 0.0, std: float = SMALL) -> None:
        """Embeddings, positions and values start at N(0, std)."""
        super().__init__()
        self.rate = rate
        self.embedding = nn.Embedding(sizes.vocabulary, width) if sizes.vocabulary else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=std)
        self.position = nn.Embedding(positions, width) if positions else None
        if self.position is not None:
            nn.init.normal_(self.position.weight, std=std)
        self.values = nn.Linear(sizes.channels, width) if sizes.channels else None
        if self.values is not None and self.embedding is not None:
            nn.init.normal_(self.values.weight, std=std)  # as small as the symbols, which would be drowned
            nn.init.zeros_(self.values.bias)

    def forward(
        self, tokens_BT: Tensor | None, *, layout: Layout, before_B: Tensor | None, values_BTC: Tensor | None = None
    ) -> Tensor:
        """The stream before the first layer (B, T, D)."""
        parts = []
        if tokens_BT is not None and self.embedding is not None:
            parts.append(self.embedding(tokens_BT))
            if values_BTC is None and self.values is not None:  # inputs that nobody knows are zeros
                values_BTC = self.values.weight.new_zeros(*tokens_BT.shape, self.values.in_features)
        if values_BTC is not None:
            if self.values is None:
                raise ConfigError("this model was built without value channels")
            parts.append(self.values(values_BTC))
        if not parts:
            raise ConfigError("a model needs tokens or values")
        x_BTD = sum(parts[1:], parts[0])
        if self.position is not None:
            rows, length = x_BTD.shape[:2]
            start_B = before_B if before_B is not None else torch.zeros(rows, dtype=torch.long, device=x_BTD.device)
            where_BT, valid_BT = layout.where_BT(length, start_B), layout.valid_BT(length)
            if valid_BT is not None:
                where_BT = where_BT.masked_fill(~valid_BT, 0)  # pads may lie beyond the last position
            looks = where_BT.numel() and not torch.compiler.is_compiling()  # a number from the device breaks a graph
            if looks and int(where_BT.max()) >= self.position.num_embeddings:
                raise ConfigError(
                    f"position {int(where_BT.max())} lies beyond the {self.position.num_embeddings} learned positions"
                )
            x_BTD = x_BTD + self.position(where_BT)
        return dropout(x_BTD, self.rate) if self.rate and self.training else x_BTD
