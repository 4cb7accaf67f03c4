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

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.core.state import State, States
from seqloom.layers._head import Head
from seqloom.layers.gaussian import Gaussian
from seqloom.models._base import Model
from seqloom.models._input import Input
from seqloom.models.backbone import Backbone


class CausalRegression(Model):
    """Distribution of a number after every position."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
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

    @property
    def causal(self) -> bool:
        """True where no mixer sees the future."""
        return self.backbone.causal

    def forward(
        self,
        tokens_BT: Tensor | None,
        state: State | None = None,
        *,
        layout: Layout = PLAIN,
        values_BTC: Tensor | None = None,
        context: Batch | None = None,
    ) -> tuple[Outputs, State | None]:
        """Outputs ``distribution`` (B, T, P, K), the parameters of ``head``, and ``hidden``."""
        if state is not None and not isinstance(state, States):
            raise ConfigError("this is not a state of a CausalRegression")
        self.refuse(context)
        before_B = None if state is None else state.length_B
        x_BTD = self.input(tokens_BT, layout=layout, before_B=before_B, values_BTC=values_BTC)
        hidden, after = self.backbone(x_BTD, state, layout=layout)
        entries: dict[str, Any] = {
            "hidden": hidden,
            "head": self.head,
            "distribution": partial(self.head.__call__, hidden[-1]),
        }
        return Outputs(entries), after

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """The state of every layer before the first position."""
        return self.backbone.initial_state(batch, capacity=capacity)
