"""A linear map whose matrix is block-diagonal: each group of channels is mixed by itself.

    y^h = W^h x^h + b^h    for every block h

With one block it is a dense linear map; with H blocks it has 1 / H of the weights and of the operations.

Shapes: x and y (..., H K), W (H, K, K) with outputs first, b (H K), R rows.
Source: De et al., "Griffin: mixing gated linear recurrences with local attention for efficient language models", 2024,
arXiv:2402.19427, section 2.4 and appendix A (the gates).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqloom.core.errors import ConfigError


class BlockLinear(nn.Module):
    """Block-diagonal linear map of a width onto itself."""

    def __init__(self, width: int, blocks: int, bias: bool = True) -> None:
        """Weights are normal with variance 1 / K (LeCun's), biases zero, as in Griffin."""
        super().__init__()
        if blocks < 1 or width % blocks:
            raise ConfigError(f"block_linear: {blocks} blocks do not divide the width {width}")
        inner = width // blocks
        self.blocks = blocks
        self.weight = nn.Parameter(torch.randn(blocks, inner, inner) * inner**-0.5)
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        if self.blocks == 1:
            return linear(x, self.weight[0], self.bias)
        x_HRK = x.reshape(-1, *self.weight.shape[:2]).transpose(0, 1)
        y = torch.bmm(x_HRK, self.weight.mT).transpose(0, 1).reshape(x.shape)
        return y if self.bias is None else y + self.bias.to(y.dtype)
