"""What follows a state-space filter that acts on each channel alone: a nonlinearity, and a map that mixes channels.

    out = GLU(W GELU(y) + b)        or a plain linear map, or y itself

Shapes: B batch, T time, M channels of the filter, D width of the output.
Source: Gu, Goel, Ré, "Efficiently modeling long sequences with structured state spaces", 2022, arXiv:2111.00396,
appendix D (the layer around S4).
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from seqloom.core.errors import ConfigError

Activation = Literal["gelu", "none"]
Map = Literal["glu", "linear", "none"]


class Output(nn.Module):
    """Activation and channel map."""

    def __init__(self, channels: int, width: int, activation: Activation, mixing: Map) -> None:
        super().__init__()
        if mixing == "none" and channels != width:
            raise ConfigError(f"output none needs as many channels as the width, and there are {channels}, not {width}")
        self.activation, self.kind = activation, mixing
        self.map = None if mixing == "none" else nn.Linear(channels, 2 * width if mixing == "glu" else width)

    def forward(self, y_BTM: Tensor) -> Tensor:
        """(B, T, M) -> (B, T, D)."""
        if self.activation == "gelu":
            y_BTM = gelu(y_BTM)
        if self.map is not None:
            y_BTM = self.map(y_BTM)
        return glu(y_BTM, -1) if self.kind == "glu" else y_BTM

    @property
    def macs(self) -> int:
        """Multiply-adds of one position."""
        return 0 if self.map is None else self.map.weight.numel()

    @staticmethod
    def linear(activation: Activation, mixing: Map) -> bool:
        """Whether these options leave a linear filter linear."""
        return activation == "none" and mixing != "glu"
