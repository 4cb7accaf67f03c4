"""Normalisation of the residual stream.

    rms:    y = g * x / sqrt(mean(x^2) + eps)
    layer:  y = g * (x - mean(x)) / sqrt(var(x) + eps) + b

Shapes: x (..., D). Statistics are computed in float32 whatever the autocast.
Source: Zhang and Sennrich, "Root mean square layer normalization", 2019, arXiv:1910.07467;
Ba et al., "Layer normalization", 2016, arXiv:1607.06450.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from seqloom.core.component import Component


class Norm(Component, nn.Module):
    """RMS or layer normalisation over the last axis."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Which normalisation."""

        kind: Literal["rms", "layer"] = "rms"
        """rms keeps the mean; layer removes it and adds a bias."""
        eps: float = 1e-5
        """Added to the variance."""

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Gains start at one, biases at zero."""
        super().__init__()
        self.config = config or self.Config()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if self.config.kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; the output has the input's dtype."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        weight = self.weight.to(wide.dtype)
        if self.bias is None:
            return rms_norm(wide, weight.shape, weight, self.config.eps).to(x.dtype)
        return layer_norm(wide, weight.shape, weight, self.bias.to(wide.dtype), self.config.eps).to(x.dtype)
