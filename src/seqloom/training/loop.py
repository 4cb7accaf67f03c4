"""The only training loop.

    theta <- AdamW(theta, grad sum_i loss_i / sum_i count_i)

Randomness is keyed by (seed, step) and (seed, epoch, example), never by what was drawn before: a run that was killed
and resumed writes the same bytes as one that was not.
"""

import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqloom.comm.world import Alone, World
from seqloom.core import auxiliary
from seqloom.core.batch import Batch
from seqloom.core.counting import saved_bytes
from seqloom.core.errors import ConfigError, Diverged
from seqloom.core.protocols import Progress, Silent
from seqloom.core.rng import generator, torch_generator
from seqloom.data.examples import Examples
from seqloom.models._base import Model
from seqloom.objectives._base import Term, divisor
from seqloom.training._interrupt import polite_interrupt
from seqloom.training._resume import moments, restore, save, set_moments
from seqloom.training._totals import Totals
from seqloom.training.metrics import Metrics
from seqloom.training.prepare import Prepared
from seqloom.training.rollout import Rollouts
from seqloom.training.run import Run, Stage, stage_at

CHECKPOINT = "checkpoint.safetensors"
MEASURED = 10
CHECKPOINT_SECONDS = 15.0


@dataclass
class Trained:
    """What a training leaves behind."""

    model: Any
    """With the weights of the best look, in evaluation mode."""
    steps: int
    """Optimiser steps planned; ``taken`` were made."""
    taken: int
    seconds: float
    """Of training steps alone, over all resumes."""
    tokens: int
    """Positions learnt from."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Steps and looks, as in metrics.jsonl."""
    memory: int = 0
    """Bytes of weights, gradients, optimiser and what the largest batch saves for its backward pass."""
    stopped: str = "budget"
    """Why it ended: budget, early or fitted."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: the run was saved and can be resumed."""


class Loop:
    """One neural training; ``run()`` does it all."""

    def __init__(
        self,
        run: Run,
        data: Prepared,
        *,
        out: Path | None = None,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        world: World | None = None,
    ) -> None:
        """Build model and optimiser; weights depend on the run's seed alone."""
        self.recipe, self.data, self.out = run, data, out
        self.device, self.progress, self.world = torch.device(device), progress or Silent(), world or Alone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_generator(run.seed, "weights").initial_seed())
            self.model: Model = run.model.build(data.sizes).to(self.device)
        self.callbacks = [config.build() for config in run.callbacks]
        self.step, self.steps, self.epoch, self.cursor = 0, run.budget.steps or 0, 0, 0
        self.seconds, self.tokens, self.memory = 0.0, 0, 0
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.stale = float("inf"), 0
        self.stages = run.stages or (Stage(objective=run.objective),)
        self.stage, self.objective = -1, self.stages[0].objective.build()
        self.optimiser = run.optimiser.build(self.model)
        self.rollouts = Rollouts(run.seed)
        self._learns = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self._order: tuple[int, list[Any]] = (-1, [])
        self._check()

    def run(self, *, resume: bool = False) -> Trained:
        """Train to the end of the budget, from the last checkpoint if asked to.

        Raises:
            Diverged: the loss is not finite; the last good checkpoint stays.
            Interrupted: Ctrl-C, after saving.
        """
        if resume and self.out is not None and (self.out / CHECKPOINT).exists():
            restore(self, self.out / CHECKPOINT)
        if not self.step:
            self.memory = self._training_bytes()
        if not self.steps:
            self._fix_steps()
        metrics = Metrics(self.out, resumed_at=self.step)
        for callback in self.callbacks:
            callback.begin(self)
        self.progress.stage("train", self.steps)
        self.progress.advance(self.step)
        try:
            stopped = self._train(metrics)
        finally:
            metrics.close()
        for callback in self.callbacks:
            callback.end(self)
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()
        return Trained(
            self.model, self.steps, self.step, self.seconds, self.tokens, metrics.events, self.memory, stopped
        )

    def _train(self, metrics: Metrics) -> str:
        looks = self._look_steps()
        saved = time.monotonic()
        with torch.random.fork_rng(devices=[]), polite_interrupt() as interrupted:
            while self.step < self.steps:
                if self._impatient():  # resumed after its last look
                    return "early"
                values = self._one_step()
                self._report(metrics, values)
                if self.step in looks:
                    self._look(metrics)
                late = time.monotonic() - saved > CHECKPOINT_SECONDS
                if self.step in looks or self.step == self.steps or late or interrupted():
                    self._save()
                    saved = time.monotonic()
                if interrupted():
                    raise Interrupted(f"stopped at step {self.step} of {self.steps}")
        return "budget"

    def _one_step(self) -> dict[str, float]:
        """One optimiser step over the run's micro-batches."""
        self._enter_stage()
        began = time.perf_counter()
        self.model.train()
        torch.manual_seed(torch_generator(self.recipe.seed, "step", self.step).initial_seed())
        batches = [self._next_batch() for _ in range(self.recipe.accumulate)]
        with self._autocast():
            batches = self.rollouts.attach(batches, self.model, self.objective, self.step)
        factor = self.recipe.schedule.factor(self.step, self.steps) * self.stages[self.stage].lr
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        totals = self._backward(batches)
        norm = self._clip()
        values = totals.means(self.world)
        if not all(map(_finite, (*values.values(), norm))):
            raise Diverged(self._diverged(values, norm))
        self.optimiser.step()
        self.step += 1
        self.seconds += time.perf_counter() - began
        self.tokens += int(sum(float(batch.weights.count_nonzero()) for batch in batches if batch.weights is not None))
        return {**values, "lr": factor * self.recipe.optimiser.lr, "norm": norm, "seconds": self.seconds}

    def _backward(self, batches: list[Batch]) -> Totals:
        """Gradients of (sum of a term) / (its count over all micro-batches and ranks)."""
        counts = {
            name: self.world.all_reduce(torch.stack([self.objective.count(b, name).float() for b in batches]).sum())
            for name in self.objective.terms
        }
        totals, share = Totals(), len(batches) * self.world.size
        self.model.zero_grad(set_to_none=True)  # not the optimiser's alone: what was just frozen still has a gradient
        for batch in batches:
            with self._autocast(), auxiliary.collecting() as added:
                terms = self.objective.loss(self.model.run(batch), batch)
            parts = [t.weight * t.sum / divisor(counts[name]) for name, t in terms.items() if t.weight]
            parts += [value / share for value in added.values()]
            torch.stack(parts).sum().backward()
            one = torch.ones((), device=self.device)
            totals.add(terms | {name: Term(value.detach(), one, weight=0.0) for name, value in added.items()})
        return totals

    def _clip(self) -> float:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if self.world.size > 1:
            for parameter in parameters:
                parameter.grad = self.world.all_reduce(parameter.grad)  # type: ignore[arg-type]
        limit = self.recipe.optimiser.clip or float("inf")
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def _next_batch(self) -> Batch:
        """The next batch of the run, corrupted by (seed, epoch, example)."""
        if self.cursor >= len(self._batches()):
            self.epoch, self.cursor = self.epoch + 1, 0
        indices, rows = self._batches()[self.cursor]
        self.cursor += 1
        seed = self.recipe.seed
        examples = [self.data.train[int(index)] for index in indices]
        examples = [self.objective.corrupt(e, generator(seed, "corrupt", self.epoch, e.index)) for e in examples]
        return self.objective.batch(examples, rows=[int(row) for row in rows]).to(self.device)

    def _batches(self) -> list[Any]:
        """The batches of this epoch, in order."""
        if self._order[0] != self.epoch:
            widths_N = self.data.train.lengths + self.objective.margin
            self._order = (self.epoch, self.recipe.batch.epoch(widths_N, self.recipe.seed, self.epoch))
        return self._order[1]

    def _enter_stage(self) -> None:
        """Enter the stage that the step at hand belongs to, if it is a new one."""
        wanted = stage_at(self.stages, self.step, self.steps)
        if wanted != self.stage:
            self.enter(wanted)

    def enter(self, number: int) -> None:
        """Change objective, frozen parameters and optimiser to those of a stage; moments stay unless it resets them."""
        stage = self.stages[number]
        self._freeze(stage.freeze)
        self.objective = stage.objective.build()
        self.rollouts.forget()
        if self.stage >= 0 or stage.freeze:
            kept = {} if stage.reset else moments(self.optimiser, self.model)
            self.optimiser = self.recipe.optimiser.build(self.model)
            set_moments(self.optimiser, self.model, kept)
        self.stage = number

    def _freeze(self, prefixes: tuple[str, ...]) -> None:
        """Let every parameter learn that the model lets learn, but for these."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._learns and not name.startswith(prefixes))

    def _check(self) -> None:
        """Refuse what would train without learning, or learn by copying."""
        names = [name for name, _ in self.model.named_parameters()]
        for stage in self.stages:
            unknown = [prefix for prefix in stage.freeze if not any(name.startswith(prefix) for name in names)]
            if unknown:
                raise ConfigError(f"no parameter begins with {unknown[0]!r}: nothing to freeze; there are {names}")
            if stage.objective.owner.causal and not self.model.causal:  # type: ignore[attr-defined]
                raise ConfigError(
                    f"{stage.objective.owner.__name__} asks what comes next of a model that sees it: "
                    f"choose causal mixers, or another objective"
                )
        if not len(self.data.train):
            raise ConfigError("the training part is empty: there is nothing to learn from")

    def _look(self, metrics: Metrics) -> None:
        """Evaluate on the validation part and keep the best weights."""
        values = self.evaluate(self.data.valid, limit=self.recipe.stopping.examples)
        metrics.add("look", self.step, {**values, "seconds": self.seconds})
        self.progress.advance(0, {"valid": values["loss"]})
        for callback in self.callbacks:
            callback.after_look(self, values)
        if values["loss"] < self.best_loss:
            self.best_loss, self.stale = values["loss"], 0
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        else:
            self.stale += 1

    def _impatient(self) -> bool:
        """Whether too many looks have brought nothing better."""
        return bool(self.recipe.stopping.patience) and self.stale >= self.recipe.stopping.patience

    @torch.no_grad()
    def evaluate(self, examples: Examples, *, limit: int = 0) -> dict[str, float]:
        """Mean of every term over examples, uncorrupted by chance: each is drawn once, by its own key."""
        count = min(len(examples), limit or len(examples))
        if not count:
            return {}
        examples = examples.select(np.linspace(0, len(examples) - 1, count).round().astype(int))
        picked = [self.objective.corrupt(e, generator(self.recipe.seed, "look", e.index)) for e in examples]
        self.model.eval()
        totals = Totals()
        for indices, rows in self.recipe.batch.epoch(examples.lengths + self.objective.margin, self.recipe.seed, 0):
            batch = self.objective.batch([picked[int(i)] for i in indices], rows=[int(r) for r in rows]).to(self.device)
            with self._autocast():
                batch = self._with_rollouts(batch, "look")
                totals.add(self.objective.loss(self.model.run(batch), batch))
        means = totals.means(self.world)
        return {**means, "loss": totals.loss(means)}

    def _with_rollouts(self, batch: Batch, why: str) -> Batch:
        """A batch outside the steps: its rollouts are always new, and drawn by the examples alone."""
        if self.objective.rollouts is None:
            return batch
        return replace(batch, rollouts=self.rollouts.fresh(batch, self.model, self.objective, (why,)))

    def _fix_steps(self) -> None:
        """Turn seconds into steps: measure a few, undo them, then fix the number and write it down."""
        budget = self.recipe.budget.seconds or 0.0
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.steps = 2 * MEASURED
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            met = self._timed_steps(MEASURED, budget / 10)
            self.epoch, self.cursor = 0, 0  # the same batches again: a first meeting with a shape compiles
            times = self._timed_steps(len(met), budget)
        left = max(0.0, budget - (time.perf_counter() - began))
        self.model.load_state_dict(before)
        self._freeze(())  # a later stage may have frozen some: without this the new optimiser would miss them
        self.optimiser = self.recipe.optimiser.build(self.model)
        self.rollouts.forget()
        self.step, self.stage, self.epoch, self.cursor, self.tokens, self.seconds = 0, -1, 0, 0, 0, 0.0
        calm = sorted(times)[: max(1, 3 * len(times) // 4)]  # the slowest quarter is other people's noise
        self.steps = max(1, int(left / statistics.fmean(calm)))
        if self.out is not None:
            self._save()

    def _timed_steps(self, count: int, seconds: float) -> list[float]:
        """Seconds of each of the next steps, at least three, until ``count`` are made or the time is spent."""
        times: list[float] = []
        while len(times) < min(3, count) or (len(times) < count and sum(times) < seconds):
            began = time.perf_counter()
            self._one_step()
            times.append(time.perf_counter() - began)
        return times

    def _training_bytes(self) -> int:
        """Bytes of weights, gradients, both moments, and of what the largest batch keeps for its backward pass."""
        lengths_N = self.data.train.lengths
        sizes = [len(set(rows)) * int(lengths_N[indices].max()) for indices, rows in self._batches()]
        self.cursor = int(np.argmax(sizes))
        batch = self._next_batch()
        self.epoch, self.cursor = 0, 0
        self.model.train()
        with torch.random.fork_rng(devices=[]), self._autocast():
            batch = self._with_rollouts(batch, "size")
            kept = saved_bytes(
                lambda: [term.sum for term in self.objective.loss(self.model.run(batch), batch).values()]
            )
        return kept + sum(p.nbytes * (4 if p.requires_grad else 1) for p in self.model.parameters())

    def _look_steps(self) -> set[int]:
        looks = min(self.recipe.stopping.looks, self.steps) if len(self.data.valid) else 0
        return {round(self.steps * (k + 1) / looks) for k in range(looks)}

    def _report(self, metrics: Metrics, values: dict[str, float]) -> None:
        metrics.add("step", self.step, values)
        self.progress.advance(1, {name: values[name] for name in ("nll", "accuracy") if name in values})
        for callback in self.callbacks:
            callback.after_step(self, values)

    def _autocast(self) -> Any:
        if self.recipe.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _diverged(self, values: dict[str, float], norm: float) -> str:
        figures = ", ".join(f"{name} {value:g}" for name, value in values.items())
        kept = "nothing was saved yet"
        if self.out is not None and (self.out / CHECKPOINT).exists():
            kept = f"the last good checkpoint is {self.out / CHECKPOINT}"
        where = f"training diverged at step {self.step + 1} ({figures}, gradient norm {norm:g})"
        return f"{where}; {kept}. Lower the learning rate"

    def _save(self) -> None:
        """Write the checkpoint that ``resume`` continues from."""
        if self.out is not None:
            save(self, self.out / CHECKPOINT)


def _finite(value: float) -> bool:
    return value - value == 0.0
