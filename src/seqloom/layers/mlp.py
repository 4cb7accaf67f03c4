"""The channel mixer of a block.

    gelu:    y = W2 gelu(W1 x)            gelu_tanh: the tanh approximation that GPT-2 uses
    swiglu:  y = W2 (silu(Wg x) * (W1 x))

Shapes: x (..., D); the hidden width is ``hidden * D``.
Source: Hendrycks and Gimpel, 2016, arXiv:1606.08415;
Shazeer, "GLU variants improve transformer", 2020, arXiv:2002.05202.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.layers.linear import Linear


class MLP(Component, nn.Module):
    """Two linear maps with a nonlinearity between, gated or not."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Shape of the channel mixer."""

        kind: Literal["gelu", "gelu_tanh", "swiglu"] = "swiglu"
        """swiglu has a third map, so its hidden width is usually two thirds as large."""
        hidden: float = 8 / 3
        """Hidden width as a multiple of the width."""
        multiple: int = 8
        """The hidden width is rounded to a multiple of this; 1 = exactly as asked for."""
        bias: bool = False
        """Biases on all maps."""

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Raises ConfigError where the hidden width would be zero."""
        super().__init__()
        self.config = config or self.Config()
        if self.config.hidden <= 0 or self.config.multiple < 1:
            raise ConfigError(f"mlp.hidden and mlp.multiple must be positive, not {self.config}")
        multiple, bias = self.config.multiple, self.config.bias
        self.hidden = max(multiple, round(self.config.hidden * width / multiple) * multiple)
        self.up = Linear(width, self.hidden * (2 if self.config.kind == "swiglu" else 1), bias=bias)
        self.down = Linear(self.hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels at every position by itself."""
        up = self.up(x)
        if self.config.kind == "swiglu":
            gate, value = up.chunk(2, -1)
            return self.down(silu(gate) * value)
        return self.down(gelu(up, approximate="tanh" if self.config.kind == "gelu_tanh" else "none"))

    def flops(self, length: int) -> int:
        """Operations of one row of this length."""
        return 2 * length * sum(part.weight.numel() for part in (self.up, self.down))
