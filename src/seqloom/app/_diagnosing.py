"""One mixer on one diagnostic task: the learning rate is chosen, the training judged, the two forms compared.

    full       each of three rates has the whole budget; the one with the lowest loss on the validation part, at its
               best look, is judged as it is
    halving    each has a third of the budget and a schedule of its own; the best one then has all of it, from new
               weights; cheaper by a third, and sometimes wrong: what is found suddenly and late (recall by two layers
               in turn) is not seen in a rehearsal, which then favours the highest rate
    a number   that rate alone

The first training turns seconds into steps, and all others take as many. The rate is chosen on the first seed. What is
not finite counts as the worst loss.

Shapes: B rows, T time, D width.
Source: a third of the budget for the first cut is successive halving, Jamieson and Talwalkar, "Non-stochastic best arm
identification and hyperparameter optimization", 2015, arXiv:1502.07943, with one round.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from seqloom.app._arm_progress import ArmProgress
from seqloom.app._diagnostics import Diagnostic
from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError, Diverged
from seqloom.core.protocols import Progress
from seqloom.data.examples import Examples
from seqloom.data.synthetic._base import Task
from seqloom.mixers._base import Mixer
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop, Trained
from seqloom.training.prepare import Prepared
from seqloom.training.run import Run

RATES = (1e-3, 3e-3, 1e-2)
SHARE = 3
CHECKED = 4
"""Rows on which the step form is compared with the parallel one."""


class Drawn:
    """Examples of tasks, kept: every mixer of a diagnosis reads the same ones."""

    def __init__(self) -> None:
        self.kept: dict[Any, Examples] = {}

    def __call__(self, task: Any, part: Any, seed: int, stop: int | None = None) -> Examples:
        """Examples of a part, up to ``stop`` of them."""
        key = (task, part, 0 if task.owner.found else seed, stop)
        if key not in self.kept:
            self.kept[key] = task.build().examples(part, seed, stop=stop)
        return self.kept[key]


class Choice(NamedTuple):
    """The learning rate, how it was found, and the budget of what is judged."""

    rate: float
    tried: list[dict[str, float | None]]
    budget: Budget
    done: tuple[Loop, Trained] | None = None
    """The training of the chosen rate, where it had the whole budget."""


def check_rates(rates: str) -> None:
    """ConfigError where it is neither ``halving`` nor ``full`` nor a learning rate."""
    try:
        known = rates in ("halving", "full") or (math.isfinite(float(rates)) and float(rates) > 0)
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"{rates!r} is no choice of learning rates: say halving, full, or a number such as 3e-3")


@dataclass(frozen=True)
class Examiner:
    """What one task asks of every mixer."""

    diagnostic: Diagnostic
    rates: str
    """``halving``, ``full``, or a learning rate."""
    seeds: int
    drawn: Drawn
    device: torch.device

    def measure(self, first: Run, progress: Progress) -> dict[str, Any]:
        """Figures of the mixer in ``first`` on the task: those of ``diagnose.Cell`` but its names."""
        choice = self._chosen(first, progress)
        optimiser, done = replace(first.optimiser, lr=choice.rate), []
        for k in range(self.seeds):
            run = replace(first, seed=first.seed + k, budget=choice.budget, optimiser=optimiser)
            shown = ArmProgress(progress, f"seed {run.seed}, rate {choice.rate:g}")
            done.append(choice.done if choice.done and not k else self._trained(run, shown))
        exact, longer = zip(*(self._judged(loop) for loop, _ in done), strict=True)
        loop, trained = done[0]
        own = {"rate": choice.rate, "tried": choice.tried, "steps": trained.taken, "seconds": trained.seconds}
        return {
            "accuracy": float(np.mean(exact)),
            "by_seed": list(exact),
            "longer": {at: _mean([one[at] for one in longer]) for at in self.diagnostic.longer},
            **self._known(first.seed),
            **own,
            **self._cost(loop, trained),
        }

    def _chosen(self, first: Run, progress: Progress) -> Choice:
        """The learning rate; Diverged where no rate stays finite."""
        if self.rates not in ("halving", "full"):
            return Choice(float(self.rates), [], first.budget)
        share = SHARE if self.rates == "halving" else 1
        budget, tried, best = _part(first.budget, share), [], None
        for rate in RATES:
            run = replace(first, budget=budget, optimiser=replace(first.optimiser, lr=rate))
            try:
                loop, trained = self._trained(run, ArmProgress(progress, f"rate {rate:g}"))
            except Diverged:
                tried.append({"rate": rate, "loss": None})
                continue
            budget = Budget(steps=trained.steps)
            losses = [event["loss"] for event in trained.events if event["kind"] == "look"]
            loss = min((loss for loss in losses if math.isfinite(loss)), default=None)
            tried.append({"rate": rate, "loss": loss})
            if loss is not None and (best is None or loss < best[0]):
                best = (loss, rate, loop, trained)
        if best is None:
            raise Diverged(f"no learning rate of {', '.join(f'{rate:g}' for rate in RATES)} stays finite")
        _, rate, loop, trained = best
        whole = first.budget if first.budget.steps else Budget(steps=share * trained.steps)
        return Choice(rate, tried, whole, (loop, trained) if share == 1 else None)

    def _trained(self, run: Run, progress: Progress) -> tuple[Loop, Trained]:
        task: Any = run.data
        train, valid, test = (self.drawn(task, part, run.seed) for part in ("train", "valid", "test"))
        data = Prepared(task.build().sizes, train, valid, test)
        loop = Loop(run, data, device=self.device, progress=progress)
        if run.task == "next" and not loop.model.causal:
            raise ConfigError("it sees the future with these options: it could read the answer")
        return loop, loop.run()

    def _judged(self, loop: Loop) -> tuple[float, dict[str, float | None]]:
        """Accuracy of the test part, and at every further length that the mixer reaches."""
        bounds = [block.mixer.can.length_bound for block in loop.model.backbone.layers]  # type: ignore[attr-defined]
        reach = min((bound for bound in bounds if bound is not None), default=None)
        got: dict[str, float | None] = {}
        for at, task in self.diagnostic.longer.items():
            examples = self.drawn(task, "test", loop.recipe.seed)
            short = reach is None or int(examples.lengths.max()) + loop.objective.margin <= reach
            got[at] = loop.evaluate(examples)["accuracy"] if short else None
        return loop.evaluate(loop.data.test)["accuracy"], got

    def _known(self, seed: int) -> dict[str, Any]:
        """What the task is worth without a mixer: the floor, and the best answer, at every length."""
        task: Task = self.diagnostic.task.build()
        right = [task.oracle(example) == task.answers(example) for example in self.drawn(task.config, "test", seed)]
        return {
            "floor": float(task.floor),
            "oracle": float(np.mean(np.concatenate(right))),
            "longer_floor": {at: float(config.build().floor) for at, config in self.diagnostic.longer.items()},
        }

    def _cost(self, loop: Loop, trained: Trained) -> dict[str, Any]:
        batch = _batch(loop)
        columns = float(np.mean(loop.data.train.lengths)) + loop.objective.margin
        return {
            "tokens_per_second": trained.taken * self.diagnostic.rows * columns / max(trained.seconds, 1e-9),
            "parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
            **_formulas(loop.model, _columns(batch)),
            "step_gap": step_gap(loop.model, batch),
        }


def capped(diagnostic: Diagnostic, budget: Budget) -> Diagnostic:
    """The task with no more training examples than so many steps read."""
    task = diagnostic.task
    if budget.steps is None or budget.steps * diagnostic.rows >= task.train:
        return diagnostic
    return replace(diagnostic, task=replace(task, train=budget.steps * diagnostic.rows))


def _part(budget: Budget, share: int) -> Budget:
    if budget.steps is not None:
        return Budget(steps=max(1, budget.steps // share))
    return Budget(seconds=(budget.seconds or 0.0) / share)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _batch(loop: Loop) -> Batch:
    """A few test examples, the longest ones."""
    test = loop.data.test
    longest = np.argsort(-test.lengths, kind="stable")[:CHECKED]
    return loop.objective.batch([test[int(index)] for index in longest]).to(loop.device)


def _columns(batch: Batch) -> int:
    given = batch.tokens_BT if batch.tokens_BT is not None else batch.values_BTC
    if given is None:
        raise ConfigError("a batch without symbols and values")
    return given.shape[1]


def _formulas(model: Any, length: int) -> dict[str, int | float | None]:
    """What the mixers cost at this length, all layers together; None where a mixer has no formula."""
    mixers: list[Mixer] = [block.mixer for block in model.backbone.layers]
    try:
        flops = sum(mixer.flops(length) for mixer in mixers) / length
    except TypeError:
        flops = None
    try:
        steps = all(mixer.can.step != "none" for mixer in mixers)
        state = sum(mixer.state_bytes(length) for mixer in mixers) if steps else None
    except TypeError:
        state = None
    return {"state_bytes": state, "flops_per_position": flops}


@torch.no_grad()
def step_gap(model: Any, batch: Batch) -> float | None:
    """Largest difference between the backbone position by position and at once, over the largest value.

    None where a mixer sees the future or has no step form.
    """
    backbone = model.backbone
    if not backbone.causal or any(block.mixer.can.step == "none" for block in backbone.layers):
        return None
    x_BTD = model.input(batch.tokens_BT, layout=batch.layout, before_B=None, values_BTC=batch.values_BTC)
    whole_BTD = backbone(x_BTD, layout=batch.layout)[0][-1]
    B, T = x_BTD.shape[:2]
    state, pieces = backbone.initial_state(B, capacity=T), []
    for t in range(T):
        hidden, state = backbone(x_BTD[:, t : t + 1], state, layout=batch.layout.cut(t, t + 1))
        pieces.append(hidden[-1])
    gap_BTD = (torch.cat(pieces, 1) - whole_BTD).abs()
    valid_BT = batch.layout.valid_BT(T)
    if valid_BT is not None:
        gap_BTD = gap_BTD * valid_BT[..., None]
    return float(gap_BTD.max() / whole_BTD.abs().max().clamp_min(1e-30))
