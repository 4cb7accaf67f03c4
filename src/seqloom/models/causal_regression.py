"""Numbers told after every event of a sequence, over any mixer that does not see the future.

    h_0 = embed(tokens) (+ W values)      h_L = backbone(h_0)      p(y_t | x_1 .. x_t) = head(h_L,t)

The numbers (how long it still takes, what it comes to in the end) belong to what has been read so far; nothing goes in
of them, and a fresh model tells the middle of the training part.

Shapes: B batch, T time, C input channels, D width, P numbers, K parameters of one distribution.
Source: Tax et al., "Predictive business process monitoring with LSTM neural networks", 2017, arXiv:1612.02130, for a
recurrent network that tells what remains after every event; the distribution is that of the head.
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


class CausalRegression(Causal):
    """Distribution of a number after every position."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Causal.Config):
        """Ends of the model."""

        backbone: Backbone.Config = field(default_factory=Backbone.Config)
        """The stack between embedding and head."""
        head: Head.Config = field(default_factory=Gaussian.Config)
        """The kind of distribution."""
        dropout: float = 0.0
        """Rate on the embedding."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Raises ConfigError where there is no number to tell, or nothing to read."""
        super().__init__(sizes, config)
        if sizes.targets < 1 or not (sizes.vocabulary or sizes.channels):
            raise ConfigError(f"a causal regression reads symbols or values and tells numbers, not {sizes}")
        width = self.config.backbone.width
        self.input = Input(sizes, width, rate=self.config.dropout)
        self.backbone: Backbone = self.config.backbone.build()
        self.head: Head = self.config.head.build(width, sizes.targets)

    def told(self, h_BTD: Tensor, values_BTC: Tensor | None) -> dict[str, Any]:
        """``distribution`` (B, T, P, K), the parameters of ``head``."""
        return {"head": self.head, "distribution": partial(self.head.__call__, h_BTD)}
