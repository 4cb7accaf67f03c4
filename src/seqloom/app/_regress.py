"""Models that tell a number after every event, behind the interface of ``_engines``, and how they are judged.

    told        quantiles of y_t given x_1 .. x_t, t = 1 .. n           in the number's own unit
    interval    low - c, high + c     c = 80 % quantile of max(low - y, y - high, 0) over the validation part, scaled
    error       |y_t - median_t|, over every prefix of the test sequences      right = inside the central 80 %

Shapes: N sequences, L prefixes of all (one an event), Q levels, K parameters of one distribution.
Source: Verenich et al., "Survey and cross-benchmark comparison of remaining time prediction methods in business process
monitoring", 2019, arXiv:1805.02896, for the mean absolute error over prefixes; Romano, Patterson and Candes,
"Conformalized quantile regression", 2019, arXiv:1905.03222, for the interval (ours counts prefixes, which are not
independent, and other times may be unlike: it is no guarantee).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from seqloom.app import _by_prefix, _scoring
from seqloom.app._engines import Blueprint, Engine
from seqloom.app._held import HeldCounts, HeldNetwork
from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Stepper
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.data.target import REMAINING, Target
from seqloom.evaluation._reliability import Reliability
from seqloom.evaluation.coverage import coverage
from seqloom.evaluation.mae import mae
from seqloom.evaluation.pinball import pinball
from seqloom.models.classical._regressor import LEVELS as KEPT
from seqloom.models.classical._regressor import ClassicalRegressor
from seqloom.objectives.regress import LABEL
from seqloom.training.prepare import OWN, Prepared

LEVELS = (0.1, 0.5, 0.9)
NO_NEXT = "it tells a number after every event; what comes next is told by a model fitted with --task next"


class Regressor(Engine):
    """What both kinds share: everything that follows from the quantiles."""

    @property
    def target(self) -> Target:
        """The number that is told."""
        if self.blueprint.target is None:
            raise ConfigError("a model that tells numbers needs their scale")
        return self.blueprint.target

    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        raise ConfigError(f"this model has no probability of a symbol: {NO_NEXT}")

    @property
    def stepper(self) -> Stepper:
        raise ConfigError(f"this model takes no steps: {NO_NEXT}")

    @abstractmethod
    def told(self, examples: Examples, levels: Sequence[float] = LEVELS) -> Ragged:
        """Quantiles after every event (L, Q), in the number's own unit.

        The first event of a sequence that continues another one is context alone: nothing is told after it.
        """

    @abstractmethod
    def whole(self, examples: Examples, levels: Sequence[float] = LEVELS) -> np.ndarray:
        """Quantiles after each whole sequence (N, Q), in the number's own unit."""


class NetworkRegressor(HeldNetwork, Regressor):
    """A CausalRegression."""

    def __init__(self, blueprint: Blueprint, model: Any) -> None:
        """Puts the model into evaluation mode."""
        self.blueprint, self.model = blueprint, model.eval()

    def vectors(self, examples: Examples) -> np.ndarray:
        return _scoring.pooled(self.model, _open(examples), window=self.blueprint.window)

    def told(self, examples: Examples, levels: Sequence[float] = LEVELS) -> Ragged:
        scaled = self.scaled(examples, levels)
        return Ragged(self.target.own(scaled.values), scaled.offsets)

    def scaled(self, examples: Examples, levels: Sequence[float]) -> Ragged:
        """Quantiles after every event as they are learnt."""
        found_LK, offsets = _scoring.prefix_distributions(self.model, _open(examples), window=self.blueprint.window)
        return Ragged(self._at(found_LK, levels), offsets)

    def whole(self, examples: Examples, levels: Sequence[float] = LEVELS) -> np.ndarray:
        found_NPK = _scoring.next_distributions(self.model, _open(examples), window=self.blueprint.window)
        return self.target.own(self._at(found_NPK[:, 0], levels))

    @torch.no_grad()
    def _at(self, parameters_LK: Tensor, levels: Sequence[float]) -> np.ndarray:
        wide_LK, head = parameters_LK.double(), self.model.head
        told = [head.quantile(wide_LK, torch.tensor(level, dtype=torch.float64)) for level in levels]
        for at, level in enumerate(levels):
            told[at] = told[at] + self.blueprint.margin * (level - 0.5) / (LEVELS[-1] - 0.5)
        return torch.stack(told, -1).numpy()


class CountedRegressor(HeldCounts, Regressor):
    """A classical model that tells a number."""

    def __init__(self, blueprint: Blueprint, model: ClassicalRegressor) -> None:
        """Keep the model."""
        self.blueprint, self.model = blueprint, model

    def vectors(self, examples: Examples) -> np.ndarray:
        """Mean over the events of the quantiles that are told."""
        tokens = _tokens(examples)
        told_LG = self.model.quantiles(tokens, KEPT.tolist())
        if len(told_LG) and (told_LG == told_LG[0]).all():
            name = type(self.model).__name__.lower()
            raise ConfigError(f"{name} tells the same whatever came before: its vectors would all be equal")
        sums_NG = np.zeros((len(tokens), told_LG.shape[1]))
        np.add.at(sums_NG, np.repeat(np.arange(len(tokens)), tokens.lengths), told_LG)
        return (sums_NG / np.maximum(tokens.lengths, 1)[:, None]).astype(np.float32)

    def told(self, examples: Examples, levels: Sequence[float] = LEVELS) -> Ragged:
        tokens = _tokens(examples)
        told_LQ = self.model.quantiles(tokens, levels)
        context_L = np.zeros(tokens.total, bool)
        context_L[(tokens.offsets[:-1] - tokens.offsets[0])[(tokens.lengths > 0) & ~examples.opens]] = True
        count_N = np.maximum(tokens.lengths - ~examples.opens, 0)
        return Ragged(told_LQ[~context_L], np.concatenate([[0], np.cumsum(count_N)]))

    def whole(self, examples: Examples, levels: Sequence[float] = LEVELS) -> np.ndarray:
        return self.model.following(_tokens(examples), levels)


def calibrated(engine: Engine, valid: Examples) -> Engine:
    """The engine with the margin at which its interval holds 80 of 100 numbers of the validation part.

    Networks are too sure of what they learnt by heart; the quantiles of classical models are those that were counted.
    An interval that holds more stays as it is: later data are rather less like training than the validation part is.
    """
    if not isinstance(engine, NetworkRegressor) or not len(valid):
        return engine
    told = engine.scaled(valid, LEVELS)
    came_L = np.concatenate([example.labels[LABEL][int(not example.opens) :] for example in valid])
    known_L = np.isfinite(came_L)
    if not known_L.any():
        return engine
    low_L, _, high_L = told.flat[known_L].T
    outside_L = np.maximum(low_L - came_L[known_L], came_L[known_L] - high_L)
    share = min(1.0, (LEVELS[-1] - LEVELS[0]) * (1 + 1 / len(outside_L)))
    engine.blueprint = replace(engine.blueprint, margin=max(0.0, float(np.quantile(outside_L, share))))
    return engine


def judged(
    engine: Engine, part: Sequences, examples: Examples
) -> tuple[dict[str, np.ndarray], np.ndarray, _by_prefix.Kept]:
    """Sums of every measure by test sequence (N,), ``mae`` first, of how many prefixes they are, errors by length.

    Of squared errors (``rmse``) the sums are of the squares: the root of their mean is told.
    """
    if not isinstance(engine, Regressor):
        raise ConfigError("this model tells no number after every event: fit with --target")
    told = engine.told(examples)
    came_L, read_L = _came(engine, part, examples, told)
    known_L = np.isfinite(came_L)
    sequence_L = np.repeat(np.arange(len(part)), told.lengths)[known_L]
    told_LQ, came_L1 = told.flat[known_L], came_L[known_L, None]
    low_L1, middle_L1, high_L1 = np.split(told_LQ, 3, 1)
    each = {
        "mae": mae(middle_L1, came_L1, each=True),
        "inside": coverage(low_L1, high_L1, came_L1, each=True),
        "pinball": pinball(told_LQ[:, None], came_L1, LEVELS, each=True),
        "rmse": np.square(middle_L1 - came_L1)[:, 0],
    }
    count_N = np.bincount(sequence_L, minlength=len(part))
    error = Ragged(each["mae"], np.concatenate([[0], np.cumsum(count_N)]))
    kept = _by_prefix.of_numbers(error, each["inside"], read_L[known_L])
    return {name: np.bincount(sequence_L, own_L, len(part)) for name, own_L in each.items()}, count_N, kept


def inside(engine: Regressor, part: Sequences, examples: Examples) -> Reliability | None:
    """How many numbers lie inside the central intervals, by the share that these promise."""
    shares_S = np.arange(1, 10) / 10
    told = engine.told(examples, [*((1 - shares_S) / 2), *((1 + shares_S) / 2)])
    came_L1 = _came(engine, part, examples, told)[0][:, None]
    known_L = np.isfinite(came_L1[:, 0])
    if not known_L.any():
        return None
    low_LS, high_LS = np.split(told.flat, 2, 1)
    held_LS = (low_LS <= came_L1) & (came_L1 <= high_LS)
    held_S = held_LS[known_L].mean(0)
    count_S = np.full(len(shares_S), int(known_L.sum()))
    return Reliability(float(np.abs(held_S - shares_S).mean()), shares_S, held_S, count_S)


def _came(engine: Regressor, part: Sequences, examples: Examples, told: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """The number that came where one was told (L,), NaN where nobody knows it, and how many events were read (L,)."""
    came = engine.target.of(part)
    context_N = (~examples.opens).astype(np.int64)  # the first event of what goes on: nothing is told after it
    read_L = np.arange(told.total) - np.repeat(told.offsets[:-1] - context_N, told.lengths) + 1
    return came.flat[np.repeat(came.offsets[:-1] - came.offsets[0], told.lengths) + read_L - 1], read_L


def predicted(engine: Regressor, asked: Sequences, examples: Examples) -> pl.DataFrame:
    """``id, prediction, lower, upper, unit``: the median, and between what the number lies in 80 of 100 cases."""
    low_N, middle_N, high_N = engine.whole(examples).T.reshape(3, -1)
    columns = {"id": asked.ids, "prediction": middle_N, "lower": low_N, "upper": high_N}
    units = [engine.target.unit] * len(asked)
    return pl.DataFrame({**columns, "unit": units}, schema_overrides={"id": pl.String, "unit": pl.String})


def remarks(data: Prepared) -> list[str]:
    """What somebody must know who asks for this number, in sentences."""
    target = data.target
    if target is None:
        return []
    remaining = target.name == REMAINING
    what = "the time that remains until the last event" if remaining else f"the value of {target.unit!r} at the end"
    shape = ", learnt as a logarithm: it has a long tail" if target.bend else ""
    said = [f"predicted after every event: {what}" + (f", in {target.unit}" if remaining else "") + shape]
    if remaining and data.features is None:
        said.append("networks read the symbols alone; --inputs gap,elapsed lets them read the time that has passed")
    came = data.train.extra[OWN].flat
    came = came[np.isfinite(came)]
    if len(came) and np.ptp(came) == 0:
        said.append(f"it is {came[0]:g} after every event of the training part: there is nothing to learn")
    return said


def _open(examples: Examples) -> Examples:
    """The same examples, which all may go on: no end symbol is read, since after it nothing is told."""
    going_on = examples.select(np.arange(len(examples)))
    going_on.closes = np.zeros(len(examples), bool)
    return going_on


def _tokens(examples: Examples) -> Ragged:
    tokens = examples.whole().tokens
    if tokens is None:
        raise ConfigError("this model reads symbols, and these data are real values")
    return Ragged(tokens.flat, tokens.offsets - tokens.offsets[0])
