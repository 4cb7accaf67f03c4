"""Sharper or flatter distributions.

    l_v <- l_v / temperature

Shapes: B hypotheses, V vocabulary.
Source: Ackley, Hinton and Sejnowski, "A learning algorithm for Boltzmann machines", 1985.
"""

from dataclasses import dataclass

from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.state import State
from seqloom.decoding._base import Processor
from seqloom.decoding._hypotheses import Hypotheses


class Temperature(Processor):
    """Divides the logits."""

    kind = "temperature"

    @dataclass(frozen=True, kw_only=True)
    class Config(Processor.Config):
        """How sharp."""

        value: float = 1.0
        """Below 1 sharpens, above 1 flattens."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError for a temperature that is not positive."""
        super().__init__(config)
        if not 0 < self.config.value < float("inf"):
            raise ConfigError(f"temperature must be above 0, not {self.config.value}: 0 is the greedy decoder")

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        return logits_BV / self.config.value
