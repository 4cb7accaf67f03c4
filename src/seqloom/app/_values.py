"""Models of real values behind the interface of ``_engines``: a distribution of every value, in scaled units.

    score    log p(y_t | y_1 .. y_{t-1}) of every channel, t = 1 .. n        right = inside the central 80 %
    ahead    mean and quantiles of y_{n+1} .. y_{n+H}: of sampled paths, or of the normal distributions themselves

Shapes: N sequences, L predicted steps of all, H steps ahead, P predicted channels, K parameters of one distribution,
S samples, Q levels.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqloom.app import _scoring
from seqloom.app._engines import Blueprint, Engine
from seqloom.app._held import HeldCounts, HeldNetwork
from seqloom.app._paths import Wanted, sample_paths
from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Stepper
from seqloom.core.rng import torch_generator
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.layers._head import Head
from seqloom.layers.gaussian import Gaussian
from seqloom.models.classical._values import ValueModel

LOW, HIGH = 0.1, 0.9
PATHS, PIECE = 100, 256
"""Paths that a network's quantiles are counted on, and sequences whose paths are held at once."""


class ValueEngine(Engine):
    """What both kinds share: everything that follows from the distributions."""

    head: Head

    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        parameters_LPK, came_LP, offsets = self.distributions(examples)
        log_LP = self.head.log_prob(parameters_LPK.double(), came_LP.double())
        inside_LP = (came_LP >= self._at(parameters_LPK, LOW)) & (came_LP <= self._at(parameters_LPK, HIGH))
        spread = offsets * self.blueprint.sizes.values
        return Ragged(log_LP.numpy().ravel(), spread), Ragged(inside_LP.numpy().ravel().astype(float), spread)

    def forecast(self, examples: Examples) -> np.ndarray:
        """Mean, lower and upper end of the central 80 % of the value after each sequence (N, P, 3), scaled."""
        after_NPK = self.after(examples).double()
        ends = [self.head.mean(after_NPK), self._at(after_NPK, LOW), self._at(after_NPK, HIGH)]
        return torch.stack(ends, -1).numpy()

    def _at(self, parameters_K: Tensor, share: float) -> Tensor:
        return self.head.quantile(parameters_K, torch.tensor(share, dtype=parameters_K.dtype))

    @abstractmethod
    def distributions(self, examples: Examples) -> tuple[Tensor, Tensor, np.ndarray]:
        """Parameters (L, P, K) of every predicted step, what came (L, P), and offsets of the sequences (N + 1,)."""

    @abstractmethod
    def after(self, examples: Examples) -> Tensor:
        """Parameters (N, P, K) of the step after each sequence."""

    @abstractmethod
    def ahead(
        self, examples: Examples, horizon: int, levels: Sequence[float], *, seed: int = 7
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (N, H, P) and quantiles (N, H, P, Q) of the next ``horizon`` values of each sequence, scaled."""

    @abstractmethod
    def write(self, examples: Examples, steps: int, *, temperature: float, seed: int) -> np.ndarray:
        """So many further steps of each sequence, sampled (N, steps, P), scaled."""

    @property
    def stepper(self) -> Stepper:
        raise ConfigError("this model predicts real values: decoders choose among symbols")


class NetworkOfValues(HeldNetwork, ValueEngine):
    """A CausalValues."""

    def __init__(self, blueprint: Blueprint, model: Any) -> None:
        """Puts the model into evaluation mode."""
        self.blueprint, self.model = blueprint, model.eval()

    @property
    def head(self) -> Head:  # type: ignore[override]
        """The model's own."""
        return self.model.head

    @torch.no_grad()
    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        return super().score(examples)

    @torch.no_grad()
    def forecast(self, examples: Examples) -> np.ndarray:
        return super().forecast(examples)

    def distributions(self, examples: Examples) -> tuple[Tensor, Tensor, np.ndarray]:
        return _scoring.value_distributions(self.model, examples, window=self.blueprint.window)

    def after(self, examples: Examples) -> Tensor:
        return _scoring.next_distributions(self.model, examples, window=self.blueprint.window)

    def vectors(self, examples: Examples) -> np.ndarray:
        return _scoring.pooled(self.model, examples, window=self.blueprint.window)

    def paths(self, examples: Examples, steps: int, count: int, *, seed: int = 7) -> np.ndarray:
        """Sampled continuations (N, S, steps, P), scaled; the inputs of what is written are withheld."""
        wanted = Wanted(steps=steps, count=count, seed=seed)
        return sample_paths(self.model, examples, wanted, window=self.blueprint.window)

    def ahead(
        self, examples: Examples, horizon: int, levels: Sequence[float], *, seed: int = 7
    ) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(examples), horizon, self.blueprint.sizes.values)
        mean_NHP, told_NHPQ = np.zeros(shape), np.zeros((*shape, len(levels)))
        for at in range(0, len(examples), PIECE):
            wanted = Wanted(steps=horizon, count=PATHS, seed=seed, first=at)
            own = sample_paths(self.model, examples[at : at + PIECE], wanted, window=self.blueprint.window)
            mean_NHP[at : at + PIECE] = own.mean(1, dtype=np.float64)
            told_NHPQ[at : at + PIECE] = np.moveaxis(np.quantile(own.astype(np.float64), levels, axis=1), 0, -1)
        return mean_NHP, told_NHPQ

    def write(self, examples: Examples, steps: int, *, temperature: float, seed: int) -> np.ndarray:
        wanted = Wanted(steps=steps, temperature=temperature, seed=seed)
        return sample_paths(self.model, examples, wanted, window=self.blueprint.window)[:, 0]


class CountedValues(HeldCounts, ValueEngine):
    """A classical model of values: normal distributions."""

    def __init__(self, blueprint: Blueprint, model: ValueModel) -> None:
        """Keep the model."""
        self.blueprint, self.model, self.head = blueprint, model, Gaussian(1, 1)  # for its arithmetic alone

    def distributions(self, examples: Examples) -> tuple[Tensor, Tensor, np.ndarray]:
        values = _values(examples)
        counted_L = np.ones(values.total, bool)
        begins = (values.offsets[:-1] - values.offsets[0])[(values.lengths > 0) & ~examples.opens]
        counted_L[begins] = False  # context alone
        parameters_LPK = _normal(*self.model.moments(values))[counted_L]
        came_LP = torch.from_numpy(values.flat[counted_L, : self.blueprint.sizes.values])
        count_N = np.maximum(values.lengths - ~examples.opens, 0)
        return parameters_LPK, came_LP, np.concatenate([[0], np.cumsum(count_N)])

    def after(self, examples: Examples) -> Tensor:
        return _normal(*self.model.following(_values(examples)))

    def vectors(self, examples: Examples) -> np.ndarray:
        """Mean and spread of every channel."""
        own = [y[:, : self.blueprint.sizes.values] for y in _values(examples)]
        width = 2 * self.blueprint.sizes.values
        made = [np.concatenate([y.mean(0), y.std(0)]) if len(y) else np.zeros(width) for y in own]
        return np.array(made, np.float32).reshape(len(own), width)

    def ahead(
        self, examples: Examples, horizon: int, levels: Sequence[float], *, seed: int = 7
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nothing is sampled: each step's distribution is normal."""
        mean_NHP, scale_NHP = self.model.ahead(_values(examples), horizon)
        far_Q = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).numpy()
        return np.array(mean_NHP), mean_NHP[..., None] + scale_NHP[..., None] * far_Q

    def write(self, examples: Examples, steps: int, *, temperature: float, seed: int) -> np.ndarray:
        rows = [y.astype(np.float64) for y in _values(examples)]
        written_NSP = np.zeros((len(rows), steps, self.blueprint.sizes.values))
        for step in range(steps):
            after_NPK = _normal(*self.model.following(Ragged.of(rows, np.float64)))
            for number, row in enumerate(rows):
                drawn_P = self._drawn(after_NPK[number], (seed, "values", number, step), temperature).numpy()
                new = np.zeros((1, row.shape[1]))
                new[0, : len(drawn_P)] = written_NSP[number, step] = drawn_P
                rows[number] = np.concatenate([row, new])
        return written_NSP

    def _drawn(self, parameters_PK: Tensor, key: tuple[Any, ...], temperature: float) -> Tensor:
        """One value for each channel; the middle of the distribution at temperature 0."""
        rng = torch_generator(*key)
        p_P = torch.rand(len(parameters_PK), generator=rng, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        middle_P = self._at(parameters_PK, 0.5)
        return middle_P + temperature * (self.head.quantile(parameters_PK, p_P) - middle_P)


def _normal(mean: np.ndarray, scale: np.ndarray) -> Tensor:
    """Parameters of the Gaussian head."""
    return torch.from_numpy(np.stack([mean, np.log(scale)], -1))


def _values(examples: Examples) -> Ragged:
    values = examples.whole().values
    if values is None:
        raise ConfigError("this model reads real values, and these data are symbols")
    return values
