"""What a training would cost, before it is begun: parameters, FLOPs, memory, time."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from seqloom.app.device import device_named
from seqloom.app.plan import Loaded, is_neural
from seqloom.core.counting import count_macs
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop
from seqloom.training.run import Stopping

PROBE = 4
"""Steps that are timed."""


@dataclass(frozen=True)
class Cost:
    """Figures of one training."""

    model: str
    parameters: int
    steps: int
    """About how many optimiser steps the budget allows."""
    step_flops: int
    """Forward and backward of one batch: three times the forward pass."""
    memory: int
    """Bytes: weights, gradients, moments, and what the backward pass keeps."""
    seconds: float
    """Of training; judging comes on top."""

    @property
    def total_flops(self) -> int:
        """Of the whole training."""
        return self.steps * self.step_flops

    def figures(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        whole = f"{self.total_flops / 1e12:.2f} TFLOP in all"
        return [
            f"{self.model}: {self.parameters:,} parameters",
            f"about {self.steps:,} steps of {self.step_flops / 1e9:.2f} GFLOP, {whole}",
            f"{self.memory / 1e6:.1f} MB for weights, gradients, optimiser and activations",
            f"about {self.seconds:.0f} s of training",
        ]


def estimate(loaded: Loaded, model: str, *, budget: str = "45s", device: str = "auto") -> Cost:
    """Time a few steps and count one; nothing is saved."""
    run = loaded.run(model, budget=budget)
    if not is_neural(run.model):
        return Cost(model, 0, 1, 0, 0, 0.0)
    probe = replace(run, budget=Budget(steps=PROBE), stopping=Stopping(looks=1, patience=0, examples=1))
    data = loaded.prepared_for(run)
    loop = Loop(probe, data, device=device_named(device))
    batch = loop.objective.batch([data.train[int(i)] for i in loop._batches()[0][0]]).to(loop.device)
    flops = 3 * count_macs(lambda: loop.model.run(batch)[loop.objective.output], strict=False).flops
    warm = Loop(probe, data, device=device_named(device)).run()
    trained = loop.run()
    each = trained.seconds / trained.taken
    seconds = run.budget.seconds
    steps = run.budget.steps or int((seconds or 0.0) / each)
    parameters = sum(parameter.numel() for parameter in loop.model.parameters())
    return Cost(model, parameters, steps, flops, max(trained.memory, warm.memory), seconds or steps * each)
