"""The only training loop.

    theta <- AdamW(theta, grad sum_i loss_i / sum_i count_i)

Randomness is keyed by (seed, step) and (seed, epoch, example), never by what was drawn before: a run that was killed
and resumed writes the same bytes as one that was not.
"""

import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqloom.comm.world import Alone, World
from seqloom.core.batch import Batch
from seqloom.core.counting import saved_bytes
from seqloom.core.errors import CheckpointError, Diverged
from seqloom.core.protocols import Progress, Silent
from seqloom.core.rng import generator, torch_generator
from seqloom.data.examples import Examples
from seqloom.models._base import Model
from seqloom.training import checkpoint
from seqloom.training.metrics import Metrics
from seqloom.training.prepare import Prepared
from seqloom.training.run import Run, Stage, stage_at

CHECKPOINT = "checkpoint.safetensors"
MEASURED = 20
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
        self._order: tuple[int, list[Any]] = (-1, [])

    def run(self, *, resume: bool = False) -> Trained:
        """Train to the end of the budget, from the last checkpoint if asked to.

        Raises:
            Diverged: the loss is not finite; the last good checkpoint stays.
            Interrupted: Ctrl-C, after saving.
        """
        if resume:
            self._restore()
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
        with torch.random.fork_rng(devices=[]), _polite_interrupt() as interrupted:
            while self.step < self.steps:
                values = self._one_step()
                self._report(metrics, values)
                if self.step in looks and self._look(metrics):
                    self._save()
                    return "early"
                late = time.monotonic() - saved > CHECKPOINT_SECONDS
                if self.step in looks or late or interrupted():
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
        factor = self.recipe.schedule.factor(self.step, self.steps) * self.stages[self.stage].lr
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        sums, counts = self._backward(batches)
        norm = self._clip()
        values = {name: float(value / counts[name].clamp_min(1)) for name, value in sums.items()}
        if not all(map(_finite, (*values.values(), norm))):
            raise Diverged(self._diverged(values, norm))
        self.optimiser.step()
        self.step += 1
        self.seconds += time.perf_counter() - began
        self.tokens += int(sum(float(batch.weights.count_nonzero()) for batch in batches if batch.weights is not None))
        return {**values, "lr": factor * self.recipe.optimiser.lr, "norm": norm, "seconds": self.seconds}

    def _backward(self, batches: list[Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Gradients of (sum of a term) / (its count over all micro-batches and ranks); sums and counts by name."""
        totals = {
            name: self.world.all_reduce(torch.stack([self.objective.count(b, name).float() for b in batches]).sum())
            for name in self.objective.terms
        }
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        self.optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            with self._autocast():
                terms = self.objective.loss(self.model.run(batch), batch)
            parts = [t.weight * t.sum / totals[name].clamp_min(1) for name, t in terms.items() if t.weight]
            torch.stack(parts).sum().backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.sum.detach()
                counts[name] = counts.get(name, 0) + term.count.detach()
        return sums, counts

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
        """Change objective, learning rate and frozen parameters where a new stage begins."""
        wanted = stage_at(self.stages, self.step, self.steps)
        if wanted == self.stage:
            return
        stage = self.stages[wanted]
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(stage.freeze) if stage.freeze else True)
        self.objective = stage.objective.build()
        if self.stage >= 0 or stage.freeze:
            kept = None if stage.reset else self._moments()
            self.optimiser = self.recipe.optimiser.build(self.model)
            self._set_moments(kept or {})
        self.stage = wanted

    def _look(self, metrics: Metrics) -> bool:
        """Evaluate on the validation part and keep the best weights; True where patience is at an end."""
        values = self.evaluate(self.data.valid, limit=self.recipe.stopping.examples)
        if not values:
            return False
        metrics.add("look", self.step, {**values, "seconds": self.seconds})
        self.progress.advance(0, valid=values["loss"])
        for callback in self.callbacks:
            callback.after_look(self, values)
        if values["loss"] < self.best_loss:
            self.best_loss, self.stale = values["loss"], 0
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        else:
            self.stale += 1
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
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        weights: dict[str, float] = {}
        for indices, rows in self.recipe.batch.epoch(examples.lengths + self.objective.margin, self.recipe.seed, 0):
            batch = self.objective.batch([picked[int(i)] for i in indices], rows=[int(r) for r in rows]).to(self.device)
            with self._autocast():
                terms = self.objective.loss(self.model.run(batch), batch)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term.sum)
                counts[name] = counts.get(name, 0.0) + float(term.count)
                weights[name] = term.weight
        means = {name: sums[name] / max(counts[name], 1.0) for name in sums}
        return {**means, "loss": sum(weights[name] * means[name] for name in means)}

    def _fix_steps(self) -> None:
        """Turn seconds into steps: measure a few on a throwaway copy, then fix the number and write it down."""
        budget = self.recipe.budget.seconds or 0.0
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.steps, times = MEASURED, []
        with torch.random.fork_rng(devices=[]):
            self._one_step()  # compiles and warms up: no measure of the others
            spent = time.perf_counter()
            while len(times) < MEASURED and (len(times) < 3 or time.perf_counter() - spent < budget / 5):
                began = time.perf_counter()
                self._one_step()
                times.append(time.perf_counter() - began)
        left = max(0.0, budget - (time.perf_counter() - spent))
        self.model.load_state_dict(before)
        self.optimiser = self.recipe.optimiser.build(self.model)
        self.step, self.stage, self.epoch, self.cursor, self.tokens, self.seconds = 0, -1, 0, 0, 0, 0.0
        self.steps = max(1, int(left / statistics.median(times)))
        if self.out is not None:
            self._save()

    def _training_bytes(self) -> int:
        """Bytes of weights, gradients, both moments, and of what the first batch keeps for its backward pass."""
        batch = self._next_batch()
        self.epoch, self.cursor = 0, 0
        self.model.train()
        with torch.random.fork_rng(devices=[]), self._autocast():
            kept = saved_bytes(
                lambda: [term.sum for term in self.objective.loss(self.model.run(batch), batch).values()]
            )
        return kept + sum(p.nbytes * (4 if p.requires_grad else 1) for p in self.model.parameters())

    def _look_steps(self) -> set[int]:
        looks = min(self.recipe.stopping.looks, self.steps) if len(self.data.valid) else 0
        return {round(self.steps * (k + 1) / looks) for k in range(looks)}

    def _report(self, metrics: Metrics, values: dict[str, float]) -> None:
        metrics.add("step", self.step, values)
        self.progress.advance(1, **{name: values[name] for name in ("nll", "accuracy") if name in values})
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
        if self.out is None:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"optimiser.{name}": value for name, value in self._moments().items()}
        names = ("step", "steps", "epoch", "cursor", "tokens", "seconds", "stale", "memory", "stage")
        meta = {name: getattr(self, name) for name in names}
        best = None if self.best_loss == float("inf") else self.best_loss
        checkpoint.save(self.out / CHECKPOINT, tensors, {**meta, "best_loss": best, "run": self.recipe.to_json()})

    def _restore(self) -> None:
        """Continue from the checkpoint, if there is one; CheckpointError where it belongs to another run."""
        if self.out is None or not (self.out / CHECKPOINT).exists():
            return
        tensors, meta = checkpoint.load(self.out / CHECKPOINT)
        if meta["run"] != self.recipe.to_json():
            different = [key for key, value in self.recipe.to_json().items() if meta["run"].get(key) != value]
            raise CheckpointError(f"{self.out / CHECKPOINT} belongs to another run: {', '.join(different)} differ")
        for name in ("step", "steps", "epoch", "cursor", "tokens", "seconds", "stale", "memory"):
            setattr(self, name, meta[name])
        self.best_loss = float("inf") if meta["best_loss"] is None else meta["best_loss"]
        self.model.load_state_dict(_under(tensors, "model."))
        self.best = {name: value.to(self.device) for name, value in _under(tensors, "best.").items()}
        if meta["stage"] >= 0:
            self._enter_stage()
        self._set_moments(_under(tensors, "optimiser."))

    def _moments(self) -> dict[str, Tensor]:
        """The optimiser's tensors by parameter name."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return {
            f"{key}:{names[id(parameter)]}": value
            for parameter, entries in self.optimiser.state.items()
            for key, value in entries.items()
        }

    def _set_moments(self, tensors: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for label, value in tensors.items():
            key, _, name = label.partition(":")
            if parameters[name].requires_grad:
                self.optimiser.state[parameters[name]][key] = value.to(self.device if key != "step" else "cpu").clone()


def _finite(value: float) -> bool:
    return value - value == 0.0


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@contextmanager
def _polite_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks to stop after the step at hand; the second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
