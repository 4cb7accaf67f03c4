"""Rollouts: sampled from the current weights, reproducible, kept as long as they were asked for, resumed to the bit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.batching import Batching
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.decoding.greedy import Greedy
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives._base import Objective, RolloutSpec, Term
from seqloom.objectives.next_token import NextToken
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop
from seqloom.training.optimiser import AdamW
from seqloom.training.prepare import Prepared
from seqloom.training.rollout import Rollouts, rollout
from seqloom.training.run import Run, Stage, Stopping

MODEL = CausalLM.Config(backbone=Backbone.Config(width=8, layers=1, mixers=pattern("gru"), dropout=0.1))
SIZES = Sizes(vocabulary=10)
LIKED = 7


class Reward(Objective):
    """Reinforce: samples are rewarded for each LIKED symbol, above the mean of all samples."""

    rollouts = RolloutSpec(samples=4, limit=5, every=3)
    terms = ("policy",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """None."""

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        return NextToken().batch(examples, rows=rows)

    def count(self, batch: Batch, term: str) -> torch.Tensor:
        assert batch.rollouts is not None
        return batch.rollouts.weights.sum()

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        samples = batch.rollouts
        assert samples is not None
        liked_B = ((samples.targets == LIKED) * samples.weights).sum(1) / samples.weights.sum(1)
        logits_BTV = outputs["rollouts"].logits
        nll_BT = cross_entropy(logits_BTV.mT, samples.targets, reduction="none") * samples.weights
        count = samples.weights.sum()
        gain_B1 = (liked_B - liked_B.mean())[:, None]
        return {"policy": Term((gain_B1 * nll_BT).sum(), count), "liked": Term(liked_B.sum() * 5, count, 0.0)}


def data() -> Prepared:
    rng = np.random.default_rng(0)
    examples = Examples(Ragged.of([rng.integers(6, 10, n) for n in rng.integers(1, 6, 24)]))
    return Prepared(SIZES, *(examples.select(np.arange(*span)) for span in ((0, 16), (16, 24), (16, 24))))


def run(**changes: object) -> Run:
    base = Run(data=Budget(steps=1), model=MODEL, objective=Reward.Config(), budget=Budget(steps=11), seed=3)
    return replace(base, **{"batch": Batching(rows=8), "stopping": Stopping(looks=2, patience=0), **changes})


def model() -> CausalLM:
    torch.manual_seed(0)
    return MODEL.build(SIZES).eval()


def prompts() -> Batch:
    tokens_PT = torch.tensor([[1, 6, 7], [1, 8, 0]])
    return Batch(tokens_BT=tokens_PT, layout=Layout(lengths_B=torch.tensor([3, 2])), index_B=torch.tensor([11, 5]))


def spied(loop: Loop) -> list[Batch]:
    """The rollouts that each loss of a loop sees."""
    seen: list[Batch] = []
    loss = loop.objective.loss

    def kept(outputs: Outputs, batch: Batch) -> dict[str, Term]:
        seen.append(batch.rollouts)
        return loss(outputs, batch)

    loop.objective.loss = kept  # type: ignore[method-assign]
    return seen


def test_samples_stand_behind_their_prompts() -> None:
    made = rollout(model(), prompts(), RolloutSpec(samples=3, limit=4), 0)
    assert made.index_B.tolist() == [11, 11, 11, 5, 5, 5]
    for row in range(6):
        length = int(made.layout.valid_BT(made.tokens.shape[1])[row].sum())
        line = [*made.tokens[row, :length].tolist(), int(made.targets[row, length - 1])]
        start = [1, 6, 7] if row < 3 else [1, 8]
        assert line[: len(start)] == start
        assert made.targets[row, :length].tolist() == line[1:], "targets are the tokens, one to the left"
        asked = [0.0] * (len(start) - 1) + [1.0] * (len(line) - len(start))
        assert made.weights[row].tolist() == asked + [0.0] * (made.tokens.shape[1] - length)
        assert len(line) - len(start) == 4 or line[-1] == SPECIALS.eos
        assert SPECIALS.eos not in line[:-1]
    assert len({tuple(row) for row in made.targets[:3].tolist()}) > 1, "samples of one prompt differ"


def test_greedy_rollouts_are_what_greedy_writes() -> None:
    made = rollout(model(), prompts(), RolloutSpec(decoder="greedy", limit=4), 0)
    written = Greedy().decode(model(), prompts(), limit=4)
    for row, start in enumerate((3, 2)):
        asked = made.targets[row][made.weights[row] > 0].tolist()
        assert asked == written.tokens_of(row)
        assert made.tokens[row, :start].tolist() == prompts().tokens[row, :start].tolist()


def test_a_sample_depends_on_its_example_not_on_its_neighbours() -> None:
    both = rollout(model(), prompts(), RolloutSpec(samples=2, limit=4), 9)
    alone = Batch(tokens_BT=torch.tensor([[1, 8]]), index_B=torch.tensor([5]))
    one = rollout(model(), alone, RolloutSpec(samples=2, limit=4), 9)
    for row in range(2):
        got, want = (batch.targets[at][batch.weights[at] > 0] for batch, at in ((one, row), (both, 2 + row)))
        assert got.tolist() == want.tolist()


def test_rollouts_leave_the_model_as_it_was() -> None:
    training = model().train()
    made = rollout(training, prompts(), RolloutSpec(samples=2, limit=4), 0)
    again = rollout(training.eval(), prompts(), RolloutSpec(samples=2, limit=4), 0)
    assert torch.equal(made.targets, again.targets), "sampled without dropout"
    assert rollout(training.train(), prompts(), RolloutSpec(limit=1), 0) is not None
    assert training.training
    assert not made.tokens.is_inference()
    assert not made.weights.requires_grad


def test_the_context_goes_with_its_rows() -> None:
    context = Batch(tokens_BT=torch.tensor([[6, 6], [9, 9]]), layout=Layout(lengths_B=torch.tensor([2, 1])))
    stepper = model()
    stepper.start = lambda batch, capacity=None: stepper.initial_state(len(batch), capacity=capacity)
    made = rollout(stepper, replace(prompts(), context=context), RolloutSpec(samples=2, limit=2), 0)
    assert made.context.tokens.tolist() == [[6, 6], [6, 6], [9, 9], [9, 9]]
    assert made.context.layout.lengths_B.tolist() == [2, 2, 1, 1]
    kept = Rollouts(0)
    kept._kept = [made]
    other = Rollouts(0)
    other.load(kept.tensors(), torch.device("cpu"))
    assert other._kept[0].context.layout.lengths_B.tolist() == [2, 2, 1, 1]
    assert torch.equal(other._kept[0].targets, made.targets)


def test_an_objective_is_taught_by_its_own_samples() -> None:
    loop = Loop(run(budget=Budget(steps=60), optimiser=AdamW(lr=0.05), stopping=Stopping(looks=0)), data())
    events = loop.run().events
    first, last = (np.mean([event["liked"] for event in part]) for part in (events[:6], events[-6:]))
    assert first < 0.5
    assert last > 0.8


def test_rollouts_are_refreshed_when_asked_for_and_by_the_current_weights() -> None:
    loop = Loop(run(optimiser=AdamW(lr=0.1)), data())
    loop.steps = 11
    loop._enter_stage()
    seen = spied(loop)
    for _ in range(7):
        loop._one_step()
    assert all(seen[at] is seen[at - at % 3] for at in range(7))
    assert len({id(batch) for batch in seen}) == 3
    again = Loop(run(), data())
    fresh = again.rollouts.fresh(again._next_batch(), loop.model, loop.objective, ("rollout", 3, 0))
    stale = again.rollouts.fresh(replace(fresh, rollouts=None), again.model, loop.objective, ("rollout", 3, 0))
    assert not torch.equal(fresh.targets[:, :1], stale.targets[:, :1])


def test_each_micro_batch_has_its_own() -> None:
    loop = Loop(run(batch=Batching(rows=4), accumulate=2), data())
    loop.steps = 11
    loop._enter_stage()
    seen = spied(loop)
    loop._one_step()
    loop._one_step()
    assert seen[0] is seen[2]
    assert seen[1] is seen[3]
    assert set(seen[0].index_B.tolist()).isdisjoint(seen[1].index_B.tolist())


def test_the_same_seed_and_step_give_the_same_samples() -> None:
    targets = []
    for seed in (3, 3, 4):
        loop = Loop(run(seed=3), data())
        loop.rollouts.seed = seed
        loop.steps = 11
        loop._enter_stage()
        seen = spied(loop)
        loop._one_step()
        targets.append(seen[0].targets)
    assert torch.equal(targets[0], targets[1])
    assert targets[0].shape != targets[2].shape or not torch.equal(targets[0], targets[2])


@pytest.mark.parametrize("stop", [3, 5, 6, 10])
def test_a_run_with_rollouts_is_resumed_to_the_same_bits(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (Stage(objective=NextToken.Config(), share=0.2), Stage(objective=Reward.Config(), share=0.8))
    recipe = run(stages=stages)  # the second stage begins at step 2, between two refreshes
    whole = Loop(recipe, data())
    whole.run()
    monkeypatch.setattr("seqloom.training.loop.CHECKPOINT_SECONDS", -1.0)
    first = Loop(recipe, data(), out=tmp_path)
    one_step = first._one_step

    def killed() -> dict[str, float]:
        if first.step == stop:
            raise RuntimeError("killed")
        return one_step()

    first._one_step = killed  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="killed"):
        first.run()
    second = Loop(recipe, data(), out=tmp_path)
    second.run(resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


def test_the_same_samples_judge_every_look() -> None:
    loop = Loop(run(), data())
    assert loop.evaluate(loop.data.valid) == loop.evaluate(loop.data.valid)


def test_packed_rows_are_refused() -> None:
    batch = NextToken().batch([Example(index=i, tokens=np.array([6])) for i in range(2)], rows=[0, 0])
    with pytest.raises(ConfigError, match="packed"):
        Reward().prompts(batch)


def test_nothing_to_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        RolloutSpec(every=0)


def test_an_objective_without_rollouts_gets_none() -> None:
    loop = Loop(run(objective=NextToken.Config()), data())
    loop.steps = 2
    loop._enter_stage()
    seen = spied(loop)
    loop._one_step()
    assert seen == [None]
