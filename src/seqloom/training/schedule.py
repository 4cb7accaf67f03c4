"""Learning rate over a run: linear warm-up, then cosine decay to a floor.

    lr(s) = peak * (s + 1) / warmup                                     s = 0 .. warmup - 1
    lr(s) = peak * (floor + (1 - floor) (1 + cos(pi (s - warmup) / (steps - warmup))) / 2)    s = warmup .. steps - 1

Source: Loshchilov and Hutter, "SGDR", 2017, arXiv:1608.03983, equation 5 without restarts.
"""

import math
from dataclasses import dataclass

from seqloom.core.component import Value


@dataclass(frozen=True, kw_only=True)
class Schedule(Value):
    """Shape of the learning rate, as a factor of its peak."""

    warmup: float = 0.1
    """Share of the run that the linear warm-up takes."""
    floor: float = 0.02
    """Factor that is reached when the last step is done; 1 = constant after the warm-up."""

    def factor(self, step: int, steps: int) -> float:
        """Factor of the step with this number (from 0) of a run with so many steps."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, steps - warm))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
