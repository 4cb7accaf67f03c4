"""How long a training may take: a number of optimiser steps, or seconds that are turned into steps once.

``60s`` and ``2000steps`` are the two forms. Seconds: a few steps are measured, then the number of steps is fixed and
written down; from there everything is deterministic.
"""

import math
import re
from dataclasses import dataclass

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Budget(Value):
    """Exactly one of ``steps`` and ``seconds``."""

    steps: int | None = None
    """Optimiser steps."""
    seconds: float | None = None
    """Seconds of training; evaluation comes on top."""

    def __post_init__(self) -> None:
        """ConfigError unless one positive, finite number is given."""
        given = [value for value in (self.steps, self.seconds) if value is not None]
        if len(given) != 1 or not given[0] > 0 or not math.isfinite(given[0]):
            raise ConfigError("a budget is one positive number of steps or of seconds")

    def __str__(self) -> str:
        """As it is written on the command line."""
        if self.steps is not None:
            return f"{self.steps}steps"
        return f"{self.seconds:f}".rstrip("0").rstrip(".") + "s"


_FORM = r"\s*(\d+(?:\.\d+)?)\s*(s|sec|seconds|m|min|h|steps?)\s*"


def parse(text: str) -> Budget:
    """Read ``60s``, ``2m``, ``1h`` or ``2000steps``."""
    found = isinstance(text, str) and re.fullmatch(_FORM, text)
    if not found:
        raise ConfigError(f"{text!r} is no budget: write seconds (60s, 5m, 1h) or steps (2000steps)")
    number, unit = float(found[1]), found[2]
    if unit.startswith("step"):
        if number != int(number):
            raise ConfigError(f"{text!r}: the number of steps is whole")
        return Budget(steps=int(number))
    return Budget(seconds=number * {"s": 1, "m": 60, "h": 3600}[unit[0]])
