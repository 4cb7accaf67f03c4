"""The one interface of every neural model.

    outputs, state = model(tokens_BT, state, layout=layout)

Shapes: B batch, T time, C channels, S context time. Outputs are named and lazy. A state comes back where one was given.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.batch import Batch
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.core.state import State


class Model(Component, nn.Module):
    """Base of every neural model; causal ones are Steppers too."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a model."""

    config: Any

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Keep the sizes and the options."""
        super().__init__()
        self.sizes = sizes
        self.config = config if config is not None else type(self).Config()

    @property
    def causal(self) -> bool:
        """True where position t sees nothing after t: such a model can step."""
        return False

    def forward(
        self,
        tokens_BT: Tensor | None,
        state: State | None = None,
        *,
        layout: Layout = PLAIN,
        values_BTC: Tensor | None = None,
        context: Batch | None = None,
    ) -> tuple[Outputs, State | None]:
        """Named outputs of whole sequences, chunks or steps."""
        raise TypeError(f"{type(self).__name__} has no forward pass")

    def run(self, batch: Batch) -> Outputs:
        """Outputs of a training batch; those of its rollouts, if it has any, as ``rollouts``."""
        outputs, _ = self(batch.tokens_BT, layout=batch.layout, values_BTC=batch.values_BTC, context=batch.context)
        rollouts = batch.rollouts
        return outputs if rollouts is None else outputs.also({"rollouts": lambda: self.run(rollouts)})

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """The state before the first position."""
        raise ConfigError(f"{type(self).__name__} cannot continue from a state")

    def start(self, batch: Batch, *, capacity: int | None = None) -> State:
        """A decoding state for the rows of a batch; no token is consumed."""
        self.refuse(batch.context)
        return self.initial_state(len(batch), capacity=capacity)

    def step(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Tensor, State]:
        """Logits (B, q, V) after each token."""
        outputs, after = self.observe(tokens_Bq, state, layout=layout)
        return outputs.logits, after

    def observe(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Outputs, State]:
        """As ``step``, with every named output at hand."""
        if not self.causal:
            raise ConfigError(f"{type(self).__name__} sees the future with these options: it cannot step")
        outputs, after = self(tokens_Bq, state, layout=layout or PLAIN)
        if after is None:
            raise ConfigError(f"{type(self).__name__} returned no state")
        return outputs, after

    def refuse(self, context: Batch | None) -> None:
        """ConfigError where a model of one sequence is given a second one: it would be left out without a word."""
        if context is not None:
            raise ConfigError(f"{type(self).__name__} reads one sequence: it cannot attend to a context")

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device
