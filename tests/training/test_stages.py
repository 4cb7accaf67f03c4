"""Stages: each with its objective, rate and frozen parameters; resumed at their borders too."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.test_loop import MODEL, data, resumed, run, same, weights

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives.next_token import NextToken
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop
from seqloom.training.run import Stage
from seqloom.training.schedule import Schedule


@pytest.mark.parametrize("stop", [3, 4, 5, 8, 9])
def test_stages_are_resumed_at_and_between_their_borders(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = NextToken.Config()
    stages = (Stage(objective=plain, freeze=("input.",)), Stage(objective=plain, reset=True))
    stages = (*stages, Stage(objective=plain, freeze=("head.",)))
    recipe = run(model=replace(MODEL, tie=False), stages=stages)
    whole = Loop(recipe, data())
    whole.run()
    assert same(weights(whole), weights(resumed(recipe, stop, tmp_path, monkeypatch)[0]))


def test_stages_freeze_and_change_the_rate() -> None:
    stages = (
        Stage(objective=NextToken.Config(), freeze=("input.",)),
        Stage(objective=NextToken.Config(smoothing=0.1), lr=0.5, reset=True),
    )
    config = replace(MODEL, tie=False)
    loop = Loop(run(model=config, stages=stages, budget=Budget(steps=4)), data())
    before = weights(loop)
    loop._enter_stage()
    loop.steps = 4
    loop._one_step()
    loop._one_step()
    assert torch.equal(loop.model.input.embedding.weight, before["input.embedding.weight"])
    loop._one_step()
    assert not torch.equal(loop.model.input.embedding.weight, before["input.embedding.weight"])
    assert loop.objective.config.smoothing == 0.1


def test_what_is_frozen_does_not_count_in_the_gradient_norm() -> None:
    plain = NextToken.Config()
    stages = (Stage(objective=plain), Stage(objective=plain, freeze=("input.",)))
    loop = Loop(run(model=replace(MODEL, tie=False), stages=stages, budget=Budget(steps=4)), data())
    loop.steps = 4
    norms = [loop._one_step()["norm"] for _ in range(3)]
    own = [p.grad for p in loop.model.parameters() if p.grad is not None and p.requires_grad]
    seen = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in own])))
    assert min(norms[-1], 1.0) == pytest.approx(seen, rel=1e-4), "clipping looks at what learns, and at nothing else"


def test_measuring_a_budget_leaves_no_parameter_behind() -> None:
    plain = NextToken.Config()
    stages = (Stage(objective=plain), Stage(objective=plain, freeze=("input.",)))
    loop = Loop(run(model=replace(MODEL, tie=False), stages=stages, budget=Budget(seconds=0.3)), data())
    loop._fix_steps()
    before = weights(loop)
    loop._one_step()
    assert not torch.equal(loop.model.input.embedding.weight, before["input.embedding.weight"])


class Half(CausalLM):
    """A model that keeps its embedding fixed."""

    def __init__(self, sizes: Sizes, config: CausalLM.Config | None = None) -> None:
        super().__init__(sizes, config)
        self.input.embedding.weight.requires_grad_(False)


def test_what_a_model_keeps_fixed_stays_fixed() -> None:
    stages = (Stage(objective=NextToken.Config(), freeze=("head.",)), Stage(objective=NextToken.Config()))
    config = Half.Config(backbone=MODEL.backbone, tie=False)
    loop = Loop(run(model=config, stages=stages), data())
    before = weights(loop)
    loop.run()
    assert torch.equal(loop.model.input.embedding.weight, before["input.embedding.weight"])
    assert not torch.equal(loop.model.head.weight, before["head.weight"])


def test_a_frozen_name_that_nothing_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="inptu"):
        Loop(run(stages=(Stage(objective=NextToken.Config(), freeze=("inptu.",)),)), data())


def test_a_stage_has_its_own_rate() -> None:
    stages = (Stage(objective=NextToken.Config(), share=3.0), Stage(objective=NextToken.Config(), lr=0.5))
    recipe = run(stages=stages, budget=Budget(steps=8), schedule=Schedule(warmup=0.0, floor=1.0))
    rates = [event["lr"] for event in Loop(recipe, data()).run().events if event["kind"] == "step"]
    assert rates == pytest.approx([3e-3] * 6 + [1.5e-3] * 2)


def test_a_stage_forgets_the_moments_if_it_says_so() -> None:
    counted = {}
    for reset in (False, True):
        stages = (Stage(objective=NextToken.Config()), Stage(objective=NextToken.Config(), reset=reset))
        loop = Loop(run(stages=stages, budget=Budget(steps=6)), data())
        loop.run()
        counted[reset] = {int(state["step"]) for state in loop.optimiser.state.values()}
    assert counted == {False: {6}, True: {3}}
