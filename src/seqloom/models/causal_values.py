"""A causal model of real values over any mixer: the distribution of the next value after every step.

    h_0 = W values      h_L = backbone(h_0)      p(y_{t+1} | y_1 .. y_t) = head(h_L,t, y_t)

Values come scaled, with their inputs beside them (data/features.py): the first P channels are those that are
predicted. With ``residual`` the head tells the change against the last value, so that a network that has learnt
nothing is a random walk and not a constant.

Shapes: B batch, T time, C channels, P predicted channels, D width, K parameters of one distribution.
Source: Salinas et al., "DeepAR: probabilistic forecasting with autoregressive recurrent networks", 2017,
arXiv:1704.04110, for the shape of the model.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.layers._head import Head
from seqloom.layers.gaussian import Gaussian
from seqloom.models._causal import Causal
from seqloom.models._input import Input
from seqloom.models.backbone import Backbone


class CausalValues(Causal):
    """Distribution of the next real value after every step."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Causal.Config):
        """Ends of the model."""

        backbone: Backbone.Config = field(default_factory=Backbone.Config)
        """The stack between the values and the head."""
        head: Head.Config = field(default_factory=Gaussian.Config)
        """The kind of distribution."""
        residual: bool = True
        """The distribution lies around the last value instead of around zero."""
        dropout: float = 0.0
        """Rate on what enters the stack."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Raises ConfigError where there is no value to predict, or symbols come in too."""
        super().__init__(sizes, config)
        if not 0 < sizes.values <= sizes.channels or sizes.vocabulary:
            raise ConfigError(f"a causal model of values needs values and no symbols, not {sizes}")
        width = self.config.backbone.width
        self.input = Input(sizes, width, rate=self.config.dropout)
        self.backbone: Backbone = self.config.backbone.build()
        self.head: Head = self.config.head.build(width, sizes.values)

    def check(self, tokens_BT: Tensor | None, values_BTC: Tensor | None) -> None:
        """Values alone."""
        if tokens_BT is not None or values_BTC is None:
            raise ConfigError("a causal model of values reads values alone")

    def told(self, h_BTD: Tensor, values_BTC: Tensor | None) -> dict[str, Any]:
        """``distribution`` (B, T, P, K), the parameters of ``head``."""
        around_BTP = None
        if self.config.residual and values_BTC is not None:
            around_BTP = values_BTC[..., : self.sizes.values]
        return {"head": self.head, "distribution": partial(self.head.__call__, h_BTD, around_BTP)}
