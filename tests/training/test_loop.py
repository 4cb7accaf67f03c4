"""The loop: equal to a loop by hand, resumable bit for bit, honest about what went wrong."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from seqloom.comm.world import Alone
from seqloom.core.errors import CheckpointError, ConfigError, Diverged
from seqloom.core.sizes import Sizes
from seqloom.data.batching import Batching
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.layers.router import Router
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.memory.mom import MoM
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives._base import Objective
from seqloom.objectives.next_token import NextToken
from seqloom.training import checkpoint
from seqloom.training.budget import Budget
from seqloom.training.callback import Callback
from seqloom.training.loop import CHECKPOINT, Interrupted, Loop, Trained
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


def resumed(recipe: Run, stop: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Loop, Trained]:
    """Killed before the step after ``stop``, then resumed to the end."""
    monkeypatch.setattr("seqloom.training.loop.CHECKPOINT_SECONDS", -1.0)
    first = Loop(recipe, data(), out=folder)
    one_step = first._one_step

    def killed() -> dict[str, float]:
        if first.step == stop:
            raise RuntimeError("killed")
        return one_step()

    first._one_step = killed  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="killed"):
        first.run()
    second = Loop(recipe, data(), out=folder)
    return second, second.run(resume=True)


@pytest.mark.parametrize("stop", [1, 5, 7, 11])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Loop(run(), data())
    whole.run()
    second, trained = resumed(run(), stop, tmp_path, monkeypatch)
    assert same(weights(whole), weights(second))
    steps = [event["step"] for event in trained.events if event["kind"] == "step"]
    assert steps == list(range(1, 13)), "metrics.jsonl tells one story"


def test_a_run_that_stopped_early_is_not_taken_up_again(tmp_path: Path) -> None:
    recipe = run(budget=Budget(steps=40), stopping=Stopping(looks=40, patience=2), optimiser=AdamW(lr=0.5))
    first, second = (Loop(recipe, data(), out=tmp_path) for _ in range(2))
    before, after = first.run(), second.run(resume=True)
    assert before.stopped == after.stopped == "early"
    assert before.taken == after.taken < 40
    assert same(weights(first), weights(second))


def test_the_end_is_saved_without_looks(tmp_path: Path) -> None:
    Loop(run(stopping=Stopping(looks=0)), data(), out=tmp_path).run()
    assert checkpoint.load(tmp_path / CHECKPOINT)[1]["step"] == 12


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
    assert len(losses) == int(np.argmin(losses)) + 1 + 2, "two looks in vain after the best"
    assert loop.evaluate(loop.data.valid)["loss"] == pytest.approx(min(losses))


def test_a_model_that_sees_the_future_is_not_asked_for_it() -> None:
    backbone = replace(MODEL.backbone, mixers=(Attention.Config(heads=2, causal=False),))
    with pytest.raises(ConfigError, match="NextToken asks what comes next"):
        Loop(run(model=replace(MODEL, backbone=backbone)), data())


def test_an_empty_training_part_is_refused() -> None:
    nothing = data()
    nothing.train = nothing.train.select([])
    with pytest.raises(ConfigError, match="training part is empty"):
        Loop(run(), nothing)


def test_weights_below_one_are_weights_of_a_mean() -> None:
    """Counts that are fractions divide as they are: halving all weights changes neither loss nor gradient."""
    config = replace(MODEL, backbone=replace(MODEL.backbone, dropout=0.0))
    norms = []
    for factor in (1.0, 1e-3):
        part = data()
        tokens = part.train.tokens
        weight = Ragged.of([np.full(len(row), factor) for row in tokens], np.float32)
        part.train = Examples(tokens, labels={"weight": weight}, closes=np.zeros(len(tokens), bool))
        loop = Loop(run(model=config, stopping=Stopping(looks=0)), part)
        loop.steps = 12
        values = loop._one_step()
        norms.append((values["nll"], values["norm"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


class Twice(Alone):
    """Two processes that see the same."""

    size = 2

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


def test_figures_are_those_of_all_processes() -> None:
    one, two = (Loop(run(), data(), world=world) for world in (Alone(), Twice()))
    one.steps = two.steps = 12
    assert two._one_step() | {"seconds": 0} == pytest.approx(one._one_step() | {"seconds": 0}, rel=1e-5)


def test_memory_is_that_of_the_largest_batch() -> None:
    recipe = run(batch=Batching(rows=4))
    loop = Loop(recipe, data())
    each = []
    for at in range(len(loop._batches())):
        loop.cursor, widths = at, loop.data.train.lengths
        each.append((len(loop._batches()[at][0]) * widths[loop._batches()[at][0]].max(), loop._next_batch()))
    largest = max(each, key=lambda pair: pair[0])[1]
    seen = []
    loop.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    loop.epoch, loop.cursor = 0, 0
    loop._training_bytes()
    assert seen[0] == largest.tokens.shape


def test_bf16_trains() -> None:
    trained = Loop(run(precision="bf16", budget=Budget(steps=30)), data()).run()
    losses = [event["nll"] for event in trained.events if event["kind"] == "step"]
    assert losses[-1] < losses[0]
    exact = Loop(run(budget=Budget(steps=30)), data()).run()
    assert trained.events[0]["nll"] != exact.events[0]["nll"], "products are made in bfloat16"
    assert next(trained.model.parameters()).dtype == torch.float32


def test_a_run_survives_json() -> None:
    recipe = run(stages=(Stage(objective=NextToken.Config()),))
    assert Run.from_json(recipe.to_json()) == recipe
    assert isinstance(recipe.objective.build(), Objective)


class Watch(Callback):
    """Notes when it is called."""

    calls: ClassVar[list[str]] = []

    def begin(self, loop: Loop) -> None:
        self.calls.append("begin")

    def after_step(self, loop: Loop, values: dict[str, float]) -> None:
        self.calls.append(f"step {loop.step} {sorted(values)}")

    def after_look(self, loop: Loop, values: dict[str, float]) -> None:
        self.calls.append(f"look {loop.step} {sorted(values)}")

    def end(self, loop: Loop) -> None:
        self.calls.append("end")


def test_callbacks_are_told_of_everything() -> None:
    Watch.calls.clear()
    Loop(run(budget=Budget(steps=2), stopping=Stopping(looks=1), callbacks=(Watch.Config(),)), data()).run()
    step = "['accuracy', 'lr', 'nll', 'norm', 'seconds']"
    look = "look 2 ['accuracy', 'loss', 'nll']"
    assert Watch.calls == ["begin", f"step 1 {step}", f"step 2 {step}", look, "end"]


def test_a_look_takes_as_many_examples_as_it_may() -> None:
    part = data(200)
    for most, expected in ((5, 5), (0, 40), (1000, 40)):
        loop = Loop(run(budget=Budget(steps=1), stopping=Stopping(looks=1, examples=most)), part)
        rows = []
        loop.model.register_forward_pre_hook(
            lambda model, args, rows=rows: None if model.training else rows.append(len(args[0]))
        )
        loop.run()
        assert sum(rows) == expected


def test_the_rate_follows_the_schedule_up_to_each_peak() -> None:
    shape = Schedule(warmup=0.5, floor=0.3)
    loop = Loop(run(schedule=shape, budget=Budget(steps=4), optimiser=AdamW(lr=0.01)), data())
    rates = [event["lr"] for event in loop.run().events if event["kind"] == "step"]
    assert rates == pytest.approx([0.01 * shape.factor(step, 4) for step in range(4)])
    assert [group["lr"] for group in loop.optimiser.param_groups] == pytest.approx(
        [group["peak"] * shape.factor(3, 4) for group in loop.optimiser.param_groups]
    )


@pytest.mark.parametrize("limit", [0.05, 0.0])
def test_gradients_are_clipped_to_the_norm_that_was_asked_for(limit: float) -> None:
    loop = Loop(run(optimiser=AdamW(clip=limit)), data())
    loop.steps = 12
    before = loop._one_step()["norm"]
    after = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in loop.model.parameters()]))
    assert before > 0.1
    assert float(after) == pytest.approx(limit or before, rel=1e-4)


def test_losses_that_parts_ask_for_are_added_and_logged() -> None:
    """The balance of a router: its gradient is that of the loss plus its own, shared by the micro-batches."""
    mixture = replace(MODEL, backbone=Backbone.Config(width=8, layers=2, mixers=pattern("mom"), mlp=None))
    loop = Loop(run(model=mixture), data())
    values = loop._one_step()
    assert (
        values["balance"] >= 2 * 0.01 * 2 * 0.9
    )  # two layers, weight 0.01, about ``top`` = 2 where all are used alike
    quiet = Backbone.Config(width=8, layers=2, mixers=(MoM.Config(router=Router.Config(balance=0.0)),), mlp=None)
    assert "balance" not in Loop(run(model=replace(mixture, backbone=quiet)), data())._one_step()
