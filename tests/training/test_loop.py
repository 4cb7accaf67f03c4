"""The loop: equal to a loop by hand, resumable bit for bit, honest about what went wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqloom.core.errors import CheckpointError, Diverged
from seqloom.core.sizes import Sizes
from seqloom.data.batching import Batching
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives._base import Objective
from seqloom.objectives.next_token import NextToken
from seqloom.training import checkpoint
from seqloom.training.budget import Budget
from seqloom.training.loop import CHECKPOINT, Interrupted, Loop
from seqloom.training.optimiser import AdamW
from seqloom.training.prepare import Prepared
from seqloom.training.run import Run, Stage, Stopping
from seqloom.training.schedule import Schedule

MODEL = CausalLM.Config(backbone=Backbone.Config(width=8, layers=1, mixers=pattern("gru"), dropout=0.1))


def data(count: int = 40) -> Prepared:
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.choice([1, 1, 2], size=rng.integers(2, 9))) % 6 + 6 for _ in range(count)]
    examples = Examples(Ragged.of(walks))
    cut = int(count * 0.8)
    parts = [examples.select(np.arange(*span)) for span in ((0, cut), (cut, count), (cut, count))]
    return Prepared(Sizes(vocabulary=12), *parts)


def run(**changes: object) -> Run:
    base = Run(data=Budget(steps=1), model=MODEL, budget=Budget(steps=12), batch=Batching(rows=8), seed=3)
    return replace(base, **{"stopping": Stopping(looks=2, patience=0), **changes})


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_validation_loss() -> None:
    trained = Loop(run(budget=Budget(steps=60), optimiser=AdamW(lr=0.03)), data()).run()
    looks = [event["loss"] for event in trained.events if event["kind"] == "look"]
    assert looks[-1] < 0.8 * np.log(12)
    assert trained.taken == 60


def test_one_step_is_a_step_by_hand() -> None:
    config = replace(MODEL, backbone=replace(MODEL.backbone, dropout=0.0))
    recipe = run(model=config, budget=Budget(steps=1), optimiser=AdamW(clip=0.0), stopping=Stopping(looks=0))
    loop, by_hand = Loop(recipe, data()), Loop(recipe, data())
    optimiser = recipe.optimiser.build(by_hand.model)
    batch = by_hand._next_batch()
    logits = by_hand.model(batch.tokens_BT, layout=batch.layout)[0].logits
    mask = batch.weights.flatten() > 0
    torch.nn.functional.cross_entropy(logits.flatten(0, 1)[mask], batch.targets.flatten()[mask]).backward()
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * Schedule().factor(0, 1)
    optimiser.step()
    loop.run()
    for name, value in by_hand.model.state_dict().items():
        torch.testing.assert_close(loop.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_are_one_large_batch() -> None:
    config = replace(MODEL, backbone=replace(MODEL.backbone, dropout=0.0))
    whole = run(model=config, batch=Batching(rows=32, bucketed=False), budget=Budget(steps=1))
    parts = replace(whole, batch=Batching(rows=8, bucketed=False), accumulate=4)
    a, b = Loop(whole, data()), Loop(parts, data())
    a.run()
    b.run()
    for name, value in a.model.state_dict().items():
        torch.testing.assert_close(b.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 5, 7, 11])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Loop(run(), data())
    whole.run()
    monkeypatch.setattr("seqloom.training.loop.CHECKPOINT_SECONDS", -1.0)
    first = Loop(run(), data(), out=tmp_path)
    one_step = first._one_step

    def killed() -> dict[str, float]:
        if first.step == stop:
            raise RuntimeError("killed")
        return one_step()

    first._one_step = killed  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="killed"):
        first.run()
    second = Loop(run(), data(), out=tmp_path)
    trained = second.run(resume=True)
    assert same(weights(whole), weights(second))
    steps = [event["step"] for event in trained.events if event["kind"] == "step"]
    assert steps == list(range(1, 13)), "metrics.jsonl tells one story"


def test_resuming_another_run_is_refused(tmp_path: Path) -> None:
    Loop(run(), data(), out=tmp_path).run()
    with pytest.raises(CheckpointError, match="seed"):
        Loop(run(seed=4), data(), out=tmp_path).run(resume=True)


def test_seconds_become_steps_once(tmp_path: Path) -> None:
    loop = Loop(run(budget=Budget(seconds=0.5)), data(), out=tmp_path)
    trained = loop.run()
    assert trained.taken == trained.steps > 3
    again = Loop(run(budget=Budget(steps=trained.steps)), data())
    again.run()
    assert same(weights(loop), weights(again)), "measuring left no trace in the weights"


def test_a_loss_that_is_not_finite_stops_and_names_the_checkpoint(tmp_path: Path) -> None:
    loop = Loop(run(), data(), out=tmp_path)
    one_step = loop._one_step

    def poisoned() -> dict[str, float]:
        if loop.step == 8:
            with torch.no_grad():
                next(loop.model.parameters()).fill_(float("nan"))
        return one_step()

    loop._one_step = poisoned  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=f"step 9.*{CHECKPOINT}"):
        loop.run()
    tensors, meta = checkpoint.load(tmp_path / CHECKPOINT)
    assert meta["step"] == 6
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_an_interrupt_saves(tmp_path: Path) -> None:
    import signal

    loop = Loop(run(), data(), out=tmp_path)
    one_step = loop._one_step

    def interrupted() -> dict[str, float]:
        if loop.step == 4:
            signal.raise_signal(signal.SIGINT)
        return one_step()

    loop._one_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="step 5 of 12"):
        loop.run()
    assert checkpoint.load(tmp_path / CHECKPOINT)[1]["step"] == 5


def test_early_stopping_keeps_the_best_weights() -> None:
    loop = Loop(run(budget=Budget(steps=40), stopping=Stopping(looks=40, patience=2), optimiser=AdamW(lr=0.5)), data())
    trained = loop.run()
    losses = [event["loss"] for event in trained.events if event["kind"] == "look"]
    assert trained.stopped == "early"
    assert loop.evaluate(loop.data.valid)["loss"] == pytest.approx(min(losses))


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


def test_bf16_trains() -> None:
    trained = Loop(run(precision="bf16", budget=Budget(steps=30)), data()).run()
    losses = [event["nll"] for event in trained.events if event["kind"] == "step"]
    assert losses[-1] < losses[0]
    assert next(trained.model.parameters()).dtype == torch.float32


def test_a_run_survives_json() -> None:
    recipe = run(stages=(Stage(objective=NextToken.Config()),))
    assert Run.from_json(recipe.to_json()) == recipe
    assert isinstance(recipe.objective.build(), Objective)
