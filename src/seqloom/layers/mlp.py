"""The channel mixer of a block.

    gelu:    y = W2 gelu(W1 x)            gelu_tanh: the tanh approximation that GPT-2 uses
    swiglu:  y = W2 (silu(Wg x) * (W1 x))         geglu, geglu_tanh: gelu in place of silu

The maps are dense, or structured (``layers/monarch``): block-diagonal, or two such factors with a permutation between.

Shapes: x (..., D); the hidden width is ``hidden * D``.
Source: Hendrycks and Gimpel, 2016, arXiv:1606.08415;
Shazeer, "GLU variants improve transformer", 2020, arXiv:2002.05202; Fu et al., "Monarch Mixer", 2023, arXiv:2310.12109,
section 4 (structured maps).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.layers.linear import Linear
from seqloom.layers.monarch import Monarch

GATED = {"swiglu": silu, "geglu": gelu, "geglu_tanh": partial(gelu, approximate="tanh")}


class MLP(Component, nn.Module):
    """Two linear maps with a nonlinearity between, gated or not."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Shape of the channel mixer."""

        kind: Literal["gelu", "gelu_tanh", "swiglu", "geglu", "geglu_tanh"] = "swiglu"
        """Gated ones have a third map, so that their hidden width is usually two thirds as large."""
        hidden: float = 8 / 3
        """Hidden width as a multiple of the width."""
        multiple: int = 8
        """The hidden width is rounded to a multiple of this; 1 = exactly as asked for."""
        bias: bool = False
        """Biases on all maps."""
        structure: Literal["dense", "monarch", "blocks"] = "dense"
        """Matrices of the maps: dense, Monarch (about 2 n^1.5 weights), or block-diagonal (1 / blocks of them)."""
        blocks: int = 0
        """Blocks of structured maps; 0 = the root of the smaller size for Monarch, 4 for block-diagonal ones."""

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Raises ConfigError where the hidden width would be zero."""
        super().__init__()
        self.config = config or self.Config()
        if self.config.hidden <= 0 or self.config.multiple < 1:
            raise ConfigError(f"mlp.hidden and mlp.multiple must be positive, not {self.config}")
        multiple = self.config.multiple
        self.hidden = max(multiple, round(self.config.hidden * width / multiple) * multiple)
        self.up = self._map(width, self.hidden * (2 if self.config.kind in GATED else 1))
        self.down = self._map(self.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels at every position by itself."""
        up = self.up(x)
        if self.config.kind in GATED:
            gate, value = up.chunk(2, -1)
            return self.down(GATED[self.config.kind](gate) * value)
        return self.down(gelu(up, approximate="tanh" if self.config.kind == "gelu_tanh" else "none"))

    def flops(self, length: int) -> int:
        """Operations of one row of this length."""
        return 2 * length * sum(p.numel() for part in (self.up, self.down) for p in part.parameters() if p.ndim > 1)

    def _map(self, inputs: int, outputs: int) -> Linear | Monarch:
        """One map with the structure that was asked for."""
        structure, blocks, bias = self.config.structure, self.config.blocks, self.config.bias
        if structure == "dense":
            if blocks:
                raise ConfigError(f"mlp.blocks = {blocks} needs mlp.structure monarch or blocks, not dense")
            return Linear(inputs, outputs, bias=bias)
        return Monarch(inputs, outputs, blocks, structure, bias)
