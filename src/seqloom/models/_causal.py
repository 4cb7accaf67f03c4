"""What every causal model shares: one stack between an input and what it tells of every position.

    h_0 = input(tokens, values)      h_L = backbone(h_0)      outputs = told(h_L)

Shapes: B batch, T time, C channels, D width.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.outputs import Outputs
from seqloom.core.state import State, States
from seqloom.models._base import Model
from seqloom.models._input import Input
from seqloom.models.backbone import Backbone


class Causal(Model):
    """Base of the models that tell something after every position."""

    input: Input
    backbone: Backbone

    @property
    def causal(self) -> bool:
        """True where no mixer sees the future."""
        return self.backbone.causal

    def check(self, tokens_BT: Tensor | None, values_BTC: Tensor | None) -> None:
        """ConfigError for inputs that the model does not read; the default reads all of them."""

    @abstractmethod
    def told(self, h_BTD: Tensor, values_BTC: Tensor | None) -> dict[str, Any]:
        """Named outputs of the last layer; functions without arguments are called when somebody looks."""

    def forward(
        self,
        tokens_BT: Tensor | None,
        state: State | None = None,
        *,
        layout: Layout = PLAIN,
        values_BTC: Tensor | None = None,
        context: Batch | None = None,
    ) -> tuple[Outputs, State | None]:
        """What the model tells, and ``hidden``, the stream after every layer."""
        if state is not None and not isinstance(state, States):
            raise ConfigError(f"this is not a state of a {type(self).__name__}")
        self.refuse(context)
        self.check(tokens_BT, values_BTC)
        before_B = None if state is None else state.length_B
        x_BTD = self.input(tokens_BT, layout=layout, before_B=before_B, values_BTC=values_BTC)
        hidden, after = self.backbone(x_BTD, state, layout=layout)
        return Outputs({"hidden": hidden, **self.told(hidden[-1], values_BTC)}), after

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """The state of every layer before the first position."""
        return self.backbone.initial_state(batch, capacity=capacity)
