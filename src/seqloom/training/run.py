"""A whole training run as one frozen value: call a recipe, ``replace`` what differs, train.

The mixer sits in the model. The JSON form of a run is what ``run.json`` holds beside a saved model.
"""

from dataclasses import dataclass, field
from typing import Literal

from seqloom.core.component import Component, Value
from seqloom.data.batching import Batching
from seqloom.objectives._base import Objective
from seqloom.objectives.next_token import NextToken
from seqloom.tokenizers._base import Tokenizer
from seqloom.training.budget import Budget
from seqloom.training.callback import Callback
from seqloom.training.optimiser import AdamW
from seqloom.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Stopping(Value):
    """When to look at the held-out part, and when to stop early."""

    looks: int = 10
    """Evaluations on the validation part, evenly spread over the run."""
    patience: int = 4
    """Evaluations without a better validation loss before stopping; 0 = never stop early."""
    examples: int = 1000
    """Most validation examples of one look; all = 0."""


@dataclass(frozen=True, kw_only=True)
class Stage(Value):
    """A part of a run with an objective of its own; recipes with several stages are data, not loops."""

    objective: Objective.Config
    """What is learnt in this stage."""
    share: float = 1.0
    """Its part of the steps, relative to the other stages."""
    lr: float = 1.0
    """Factor on the learning rate."""
    freeze: tuple[str, ...] = ()
    """Parameters whose names begin with one of these do not change."""
    reset: bool = False
    """Forget the optimiser's moments at the start."""


def stage_at(stages: tuple[Stage, ...], step: int, steps: int) -> int:
    """Number of the stage that a step (from 0) belongs to."""
    whole = sum(stage.share for stage in stages)
    ends = [round(steps * sum(s.share for s in stages[: k + 1]) / whole) for k in range(len(stages))]
    return next((k for k, end in enumerate(ends) if step < end), len(stages) - 1)


@dataclass(frozen=True, kw_only=True)
class Run(Value):
    """Everything that decides a training."""

    data: Value
    """A file with its columns and split, or the Config of a synthetic task."""
    model: Component.Config
    """The model, its backbone and its mixers, or a classical model."""
    task: Literal["next", "classify", "regress"] = "next"
    """What is asked of the model."""
    target: str = ""
    """Task regress: the number that is told after every event: ``remaining``, a column, or ``<label>``."""
    horizon: int = 0
    """Of real values: steps ahead that it is judged on; 0 = the next one. What it learns is the next one anyway."""
    tokenizer: Tokenizer.Config | None = None
    """How symbols are made; None for tasks that give ids."""
    objective: Objective.Config = field(default_factory=NextToken.Config)
    """What is learnt."""
    stages: tuple[Stage, ...] = ()
    """Several objectives one after another, instead of the one above."""
    optimiser: AdamW = field(default_factory=AdamW)
    """How."""
    schedule: Schedule = field(default_factory=Schedule)
    """Learning rate over time."""
    batch: Batching = field(default_factory=Batching)
    """How many examples a step sees."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    budget: Budget = field(default_factory=lambda: Budget(seconds=60))
    """How long."""
    seed: int = 7
    """Seeds the weights, the order of the data, and every corruption."""
    precision: Literal["float32", "bf16"] = "float32"
    """Matrix products in bfloat16 under autocast, or everything in float32."""
    stopping: Stopping = field(default_factory=Stopping)
    """Looks at the validation part."""
    callbacks: tuple[Callback.Config, ...] = ()
    """What watches the run."""
