"""Distilling between attention layers: half the positions, the strongest of each three.

    y = maxpool(elu(norm(conv(x))))        T -> ceil(T / 2)

The convolution has three taps around a ring, the pool windows of three with stride two.

Shapes: B batch, T time, D width.
Source: Zhou et al., "Informer", 2021, arXiv:2012.07436, section 3.2 (eq. 5).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import elu, max_pool1d

from seqloom.core.component import Component


class Distil(Component, nn.Module):
    """Convolve, normalise, and keep every second position's neighbourhood maximum."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """There is nothing to choose but the norm's memory."""

        momentum: float = 0.1
        """Share of a batch's statistics in the running ones of the batch norm."""

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Kaiming's initial values, as the authors'."""
        super().__init__()
        self.config = config or self.Config()
        self.conv = nn.Conv1d(width, width, 3, padding=1, padding_mode="circular")
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.norm = nn.BatchNorm1d(width, momentum=self.config.momentum)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, ceil(T / 2), D); T may be 0."""
        if x_BTD.shape[1] == 0:
            return x_BTD
        z_BDT = elu(self.norm(self.conv(x_BTD.transpose(1, 2))))
        return max_pool1d(z_BDT, 3, stride=2, padding=1).transpose(1, 2)
