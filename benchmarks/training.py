"""The loop's overhead: twenty steps of training against the same steps in a bare torch loop."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from seqloom.core.sizes import Sizes
from seqloom.data.batching import Batching
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.testing.benchmark import Case
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop
from seqloom.training.prepare import Prepared
from seqloom.training.run import Run, Stopping

FLOOR = "bare torch loop"
STEPS = 20


def cases() -> Iterator[Case]:
    for mixer, width in ("gru", 64), ("attention", 64), ("attention", 128):
        yield case(mixer, width)


def case(mixer: str, width: int) -> Case:
    recipe, data = setting(mixer, width)

    def loop() -> None:
        Loop(recipe, data).run()

    def check() -> None:
        ours = Loop(recipe, data)
        ours.run()
        theirs = bare(recipe, data)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-3, atol=1e-5)

    name = f"{STEPS} steps, 2 layers of {mixer}, width {width}, 32 sequences of 64"
    arms = {"Loop": loop, FLOOR: lambda: bare(recipe, data)}
    return Case(name, arms, FLOOR, check, goal=1.05, rounds=15)


def setting(mixer: str, width: int) -> tuple[Run, Prepared]:
    rng = np.random.default_rng(0)
    examples = Examples(Ragged.of([rng.integers(6, 200, 63) for _ in range(32 * STEPS)]))
    data = Prepared(Sizes(vocabulary=200), examples, examples.select([]), examples.select([]))
    model = CausalLM.Config(backbone=Backbone.Config(width=width, mixers=pattern(mixer)))
    recipe = Run(
        data=Budget(steps=1),
        model=model,
        budget=Budget(steps=STEPS),
        batch=Batching(rows=32, bucketed=False),
        stopping=Stopping(looks=0),
    )
    return replace(recipe, seed=1), data


def bare(recipe: Run, data: Prepared) -> torch.nn.Module:
    """What one would write by hand: the same weights, batches, rates and clipping, and nothing else.

    Building the model and measuring its memory belong to a run, not to a step, and are done here too.
    """
    loop = Loop(recipe, data)
    model, optimiser = loop.model.train(), loop.optimiser
    loop._training_bytes()
    batches = [loop._next_batch() for _ in range(STEPS)]
    for step, batch in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * recipe.schedule.factor(step, STEPS)
        optimiser.zero_grad(set_to_none=True)
        logits = model(batch.tokens_BT)[0].logits
        cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip)
        optimiser.step()
    return model
