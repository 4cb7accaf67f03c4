"""The one interface of the heads that turn a hidden state into a distribution of real values.

    parameters = head(h_t)        loss, log p(y), and the value below which a share p of the probability lies

A distribution is of one value at a time: the channels of a step are independent given the past.
Shapes: B batch, T time, D width, P predicted channels, K parameters of one distribution.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seqloom.core.component import Component
from seqloom.layers.linear import Linear

BOUND = 7.0
"""Logarithm of the largest scale, in units of the data's standard deviation; minus it, of the smallest."""


class Head(Component, nn.Module):
    """Base of every head over real values."""

    parameters_each: int
    """Numbers that describe one distribution."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a head."""

    def __init__(self, width: int, channels: int, config: Config | None = None) -> None:
        """A linear map to the parameters of every channel; it begins at zero, so that the first guess is wide."""
        super().__init__()
        self.config: Any = config if config is not None else type(self).Config()
        self.channels = channels
        self.map = Linear(width, channels * self.parameters_each)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, h_BTD: Tensor, around_BTP: Tensor | None = None) -> Tensor:
        """Parameters (B, T, P, K), float32 at least; ``around_BTP`` is where the distribution would lie at zero."""
        raw = self.map(h_BTD)
        raw = raw.float() if raw.dtype.itemsize < 4 else raw
        raw_BTPK = raw.unflatten(-1, (self.channels, self.parameters_each))
        return self.placed(raw_BTPK, around_BTP)

    @abstractmethod
    def placed(self, raw_BTPK: Tensor, around_BTP: Tensor | None) -> Tensor:
        """Valid parameters of unbounded numbers."""

    @abstractmethod
    def loss(self, parameters_K: Tensor, y: Tensor) -> Tensor:
        """What training lowers, one number a value."""

    @abstractmethod
    def log_prob(self, parameters_K: Tensor, y: Tensor) -> Tensor:
        """Natural logarithm of the density at y."""

    @abstractmethod
    def quantile(self, parameters_K: Tensor, p: Tensor) -> Tensor:
        """The value below which the share p lies; at uniform random p it is a sample."""

    @abstractmethod
    def mean(self, parameters_K: Tensor) -> Tensor:
        """The expected value, or the median where there is no closed form."""
