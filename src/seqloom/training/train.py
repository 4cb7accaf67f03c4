"""Train whatever a run holds, neural or classical, and measure it on the test part."""

import time
from pathlib import Path
from typing import Any

import torch

from seqloom.core.counting import parameters
from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Progress, Silent
from seqloom.models._base import Model
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._regressor import ClassicalRegressor
from seqloom.models.classical._values import ValueModel
from seqloom.objectives._base import total
from seqloom.training.loop import Loop, Trained
from seqloom.training.prepare import OWN, Prepared, prepare
from seqloom.training.run import Run


def train(
    run: Run,
    data: Prepared,
    *,
    out: Path | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Trained:
    """Train one model; the loop for networks, ``fit`` for classical ones."""
    if issubclass(run.model.owner, ClassicalModel | ClassicalRegressor | ValueModel):
        return _fit(run, data, progress or Silent())
    return Loop(run, data, out=out, device=device, progress=progress).run(resume=resume)


def measure(run: Run, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """Train and report on the test part: every term's mean, parameters held and used, steps taken."""
    data = prepare(run)
    loop = Loop(run, data, device=device)
    trained = loop.run()
    batch = loop.objective.batch([data.test[i] for i in range(min(2, len(data.test)))]).to(device)
    count = parameters(trained.model, lambda: total(loop.objective.loss(trained.model.run(batch), batch)))
    return {
        **loop.evaluate(data.test),
        "parameters": float(count.held),
        "used_parameters": float(count.used or 0),
        "steps": float(trained.taken),
    }


def _fit(run: Run, data: Prepared, progress: Progress) -> Trained:
    model: Any = run.model.build(data.sizes)
    progress.stage("fit", None, "symbol")
    began = time.perf_counter()
    train, valid = data.train, data.valid
    if isinstance(model, ValueModel):
        if train.values is None:
            raise ConfigError("a model of real values needs values, and these data are symbols")
        model.fit(train.values, opens=train.opens, progress=progress)
    elif isinstance(model, ClassicalRegressor):
        if train.tokens is None or valid.tokens is None:
            raise ConfigError("a number is told after symbols, and these data are real values")
        held = (valid.tokens, valid.extra[OWN]) if len(valid) else None
        model.fit(train.tokens, train.extra[OWN], held, progress=progress)
    else:
        model.fit(train.tokens, valid.tokens, opens=train.opens, closes=train.closes, progress=progress)
    seconds = time.perf_counter() - began
    return Trained(
        model, 1, 1, seconds, data.train.symbols, [], sum(a.nbytes for a in model.arrays().values()), "fitted"
    )


def is_neural(model: Any) -> bool:
    """True for a network, False for a classical model."""
    return isinstance(model, Model)
