"""Networks, classical models and a classical model for each class behind one interface: what ``Fitted`` drives.

    network    softmax of a CausalLM, or the head of an Encoder
    classical  a model of the next symbol
    values     a network or a classical model of real values (app/_values.py)
    regress    a network or a classical model that tells a number after every event (app/_regress.py)
    bayes      p(class | x) ~ p(class) p(x | class)^s with one classical model a class; s makes it as sure as it may be

Shapes: N sequences, V vocabulary, C classes, D width of a vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqloom.app import _scoring
from seqloom.app._held import HeldCounts, HeldNetwork
from seqloom.core.batch import Batch
from seqloom.core.component import Component, Value
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.layout import Layout
from seqloom.core.outputs import Outputs
from seqloom.core.protocols import Stepper
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.core.state import State
from seqloom.data.examples import Examples
from seqloom.data.features import Features
from seqloom.data.ragged import Ragged
from seqloom.data.target import Target
from seqloom.evaluation.unseen_mass import unseen_mass
from seqloom.models.causal_regression import CausalRegression
from seqloom.models.causal_values import CausalValues
from seqloom.models.classical._base import CELLS, ClassicalModel
from seqloom.models.classical._regressor import ClassicalRegressor
from seqloom.models.classical._values import ValueModel
from seqloom.training.prepare import Prepared
from seqloom.training.run import Run

BITS = 1 / np.log(2)
LOOKED_AT = 1 << 27
"""Probabilities that a classical model writes out to be told how often it was right; sequences beyond are left out."""


@dataclass(frozen=True, kw_only=True)
class Blueprint(Value):
    """Everything that is needed to build a saved model again: ``config.json``."""

    model: Component.Config
    """The network, or the classical model (of each class)."""
    task: str = "next"
    """next, classify or regress."""
    sizes: Sizes = field(default_factory=Sizes)
    """Ends of the model."""
    classes: tuple[str, ...] = ()
    """Names of the classes."""
    window: int = 0
    """Columns that the model saw at once in training; 0 = whole sequences."""
    unseen: float | None = None
    """Probability of a symbol that training never saw; None = the model has learnt it."""
    features: Features | None = None
    """How values and inputs are scaled."""
    horizon: int = 0
    """Steps ahead that a forecast has; 0 = the next value."""
    target: Target | None = None
    """Task regress: the number that is told, its unit and its scale."""
    margin: float = 0.0
    """Task regress: by how much, scaled, the central 80 % are widened to hold as many of the validation part."""

    def engine(self, device: torch.device | str = "cpu") -> "Engine":
        """The empty model."""
        if issubclass(self.model.owner, ClassicalModel) and self.task == "classify":
            return Bayes(self, [self.model.build(self.sizes) for _ in self.classes], np.zeros(len(self.classes)), 1.0)
        model = self.model.build(self.sizes)
        return wrapped(self, model.to(device) if isinstance(model, nn.Module) else model)


def wrapped(blueprint: Blueprint, model: Any) -> "Engine":
    """The engine of a model, by its kind."""
    from seqloom.app._regress import CountedRegressor, NetworkRegressor
    from seqloom.app._values import CountedValues, NetworkOfValues

    if isinstance(model, ClassicalRegressor):
        return CountedRegressor(blueprint, model)
    if isinstance(model, CausalRegression):
        return NetworkRegressor(blueprint, model)
    if isinstance(model, ValueModel):
        return CountedValues(blueprint, model)
    if isinstance(model, CausalValues):
        return NetworkOfValues(blueprint, model)
    return Counted(blueprint, model) if isinstance(model, ClassicalModel) else Network(blueprint, model)


class Engine(ABC):
    """What every kind of model can be asked."""

    blueprint: Blueprint

    @abstractmethod
    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        """Natural log-probability of every predicted symbol or value, and whether it was right.

        Right is the likeliest symbol, or a value inside the central 80 %; NaN = nobody looked.
        """

    def following(self, examples: Examples) -> np.ndarray:
        """Log-probabilities of what follows each sequence (N, V)."""
        raise ConfigError("this model does not say which symbol comes next")

    def classify(self, examples: Examples) -> np.ndarray:
        """Log-probabilities of the classes (N, C)."""
        raise ConfigError("this model predicts what comes next, not a class: fit with --task classify")

    @abstractmethod
    def vectors(self, examples: Examples) -> np.ndarray:
        """One vector a sequence (N, D)."""

    @property
    @abstractmethod
    def stepper(self) -> Stepper:
        """The model as a decoder sees it; its logits are log-probabilities of what can follow."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Learnt numbers."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that was learnt."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` gave; CheckpointError where it does not fit."""


class Network(HeldNetwork, Engine):
    """A CausalLM or an Encoder."""

    def __init__(self, blueprint: Blueprint, model: Any) -> None:
        """Puts the model into evaluation mode."""
        self.blueprint, self.model = blueprint, model.eval()

    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        b = self.blueprint
        return _scoring.token_log_probs(self.model, examples, window=b.window, unseen=b.unseen)

    def following(self, examples: Examples) -> np.ndarray:
        b = self.blueprint
        return _scoring.next_log_probs(self.model, examples, window=b.window, unseen=b.unseen).double().numpy()

    def classify(self, examples: Examples) -> np.ndarray:
        return _scoring.class_log_probs(self.model, examples)[0]

    def vectors(self, examples: Examples) -> np.ndarray:
        if self.blueprint.task == "classify":
            return _scoring.class_log_probs(self.model, examples)[1]
        return _scoring.pooled(self.model, examples, window=self.blueprint.window)

    @property
    def stepper(self) -> Stepper:
        return Predictive(self.model, self.blueprint.unseen)


class Counted(HeldCounts, Engine):
    """A classical model of the next symbol."""

    def __init__(self, blueprint: Blueprint, model: Any) -> None:
        """Keep the model."""
        self.blueprint, self.model = blueprint, model

    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        log_p = self.model.token_log_probs(_tokens(examples), opens=examples.opens, closes=examples.closes)
        hits = np.full(len(log_p.values), np.nan)
        every = max(1, -(-len(hits) * self.blueprint.sizes.vocabulary // LOOKED_AT))
        numbers = np.arange(0, len(examples), every)
        lines = [row.tokens for row in _scoring.rows_of(examples.select(numbers)) if row.tokens is not None]
        for group in self._groups(lines):
            likeliest_BT = self._likeliest([lines[i][:-1] for i in group])
            for row, i in enumerate(group):
                target, at = lines[i][1:], log_p.offsets[numbers[i]]
                hits[at : at + len(target)] = likeliest_BT[row, : len(target)] == target
        return log_p, Ragged(hits, log_p.offsets)

    def following(self, examples: Examples) -> np.ndarray:
        with np.errstate(divide="ignore"):
            rows = [np.log(self.model.distribution(e.tokens, opens=e.opens)) for e in examples]
        return np.stack(rows) if rows else np.zeros((0, self.blueprint.sizes.vocabulary))

    def vectors(self, examples: Examples) -> np.ndarray:
        if self.model.reach == 0:
            raise ConfigError(
                f"{type(self.model).__name__.lower()} predicts the same whatever came before: its vectors would all "
                "be equal; embed with an n-gram or a network"
            )
        sums = np.zeros((len(examples), self.blueprint.sizes.vocabulary))
        for number in range(len(examples)):
            line = _line(examples, number)
            for block, _ in self._blocks(line):
                sums[number] += np.exp(block).sum(0)
            sums[number] /= max(len(line) - 1, 1)
        return sums.astype(np.float32)

    @property
    def stepper(self) -> Stepper:
        return self.model

    def _groups(self, lines: list[np.ndarray]) -> Iterator[list[int]]:
        """Lines of like lengths together, as many as one block of distributions holds."""
        order = sorted((i for i, line in enumerate(lines) if len(line) > 1), key=lambda i: len(lines[i]))
        room = max(1, CELLS // self.blueprint.sizes.vocabulary)
        while order:
            most = max(1, room // len(lines[order[-1]]))
            yield order[-most:]
            order = order[:-most]

    def _likeliest(self, inputs: list[np.ndarray]) -> np.ndarray:
        """The likeliest id after every token (B, T); behind a row's end it means nothing."""
        if len(inputs) == 1:  # it may be too long for one block
            return np.concatenate([block.argmax(-1) for block, _ in self._blocks(np.append(inputs[0], 0))])[None]
        lengths_B = torch.tensor([len(own) for own in inputs])
        tokens_BT = torch.zeros(len(inputs), int(lengths_B.max()), dtype=torch.long)
        for row, own in enumerate(inputs):
            tokens_BT[row, : len(own)] = torch.from_numpy(own)
        state = self.model.start(Batch(index_B=torch.zeros(len(inputs), dtype=torch.long)))
        return self.model.step(tokens_BT, state, layout=Layout(lengths_B=lengths_B))[0].argmax(-1).numpy()

    def _blocks(self, line: np.ndarray) -> Any:
        """Distributions (q, V) of consecutive positions and what came."""
        state = self.model.start(Batch(index_B=torch.zeros(1, dtype=torch.long)))
        step = max(1, CELLS // self.blueprint.sizes.vocabulary)
        for at in range(0, len(line) - 1, step):
            tokens = torch.from_numpy(line[at : min(at + step, len(line) - 1)])[None]
            logits, state = self.model.step(tokens, state)
            yield logits[0].numpy(), line[at + 1 : at + 1 + tokens.shape[1]]


class Bayes(Engine):
    """One classical model a class."""

    def __init__(self, blueprint: Blueprint, models: Sequence[Any], prior_C: np.ndarray, sharpness: float) -> None:
        """``prior_C``: natural logarithms of the classes' shares in training; ``sharpness``: the exponent s."""
        self.blueprint, self.models, self.prior_C, self.sharpness = blueprint, list(models), prior_C, sharpness

    def classify(self, examples: Examples) -> np.ndarray:
        return _posterior(self.likelihoods(_tokens(examples)), self.prior_C, self.sharpness)

    def likelihoods(self, ragged: Ragged) -> np.ndarray:
        """Natural logarithm of p(x | class) (N, C)."""
        return np.stack([_sums(model.token_log_probs(ragged)) for model in self.models], 1)

    def vectors(self, examples: Examples) -> np.ndarray:
        ragged = _tokens(examples)
        per_symbol_NC = self.likelihoods(ragged) / (ragged.lengths[:, None] + 1)
        return (per_symbol_NC - per_symbol_NC.mean(1, keepdims=True)).astype(np.float32)

    def score(self, examples: Examples) -> tuple[Ragged, Ragged]:
        raise ConfigError("this model tells classes apart; symbols are scored by a model of the task next")

    def following(self, examples: Examples) -> np.ndarray:
        raise ConfigError("this model tells classes apart; it does not continue sequences")

    @property
    def stepper(self) -> Stepper:
        raise ConfigError("this model tells classes apart; it does not write sequences")

    @property
    def parameters(self) -> int:
        return sum(model.held_parameters for model in self.models) + len(self.models) - 1

    def tensors(self) -> dict[str, Tensor]:
        arrays = {f"{at}.{name}": a for at, model in enumerate(self.models) for name, a in model.arrays().items()}
        arrays |= {"prior": self.prior_C, "sharpness": np.array([self.sharpness])}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if "sharpness" not in tensors or "prior" not in tensors or tensors["prior"].shape != (len(self.models),):
            raise CheckpointError("the saved model does not fit the classes of config.json")
        self.prior_C, self.sharpness = tensors["prior"].numpy(), float(tensors["sharpness"])
        for at, model in enumerate(self.models):
            own = {name.split(".", 1)[1]: t.numpy() for name, t in tensors.items() if name.startswith(f"{at}.")}
            model.load(own)


class Predictive:
    """A network whose logits are log-probabilities of what can follow."""

    def __init__(self, model: Any, unseen: float | None) -> None:
        """See ``_scoring.predictive``."""
        self.model, self.unseen = model, unseen

    def start(self, batch: Batch, *, capacity: int | None = None) -> State:
        """A state for the rows of a batch."""
        return self.model.start(batch, capacity=capacity)

    def step(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Tensor, State]:
        """Log-probabilities (B, q, V) after each token."""
        outputs, after = self.observe(tokens_Bq, state, layout=layout)
        return outputs.logits, after

    @torch.no_grad()
    def observe(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Outputs, State]:
        """As ``step``, with every named output at hand."""
        outputs, after = self.model.observe(tokens_Bq, state, layout=layout)
        own: dict[str, Any] = {"logits": lambda: _scoring.predictive(outputs.logits, self.unseen)}
        return Outputs({**{name: _later(outputs, name) for name in outputs}, **own}), after


def trained_engine(run: Run, data: Prepared, model: Any) -> Engine:
    """Wrap what training made."""
    blueprint = Blueprint(
        model=run.model,
        task=run.task,
        sizes=data.sizes,
        classes=data.classes,
        window=run.batch.window,
        unseen=unseen_of(data),
        features=data.features,
        horizon=data.horizon,
        target=data.target,
    )
    return wrapped(blueprint, model)


def fitted_bayes(run: Run, data: Prepared) -> Bayes:
    """Fit one classical model on the training sequences of each class."""
    tokens, target_N = data.train.tokens, data.train.targets
    if tokens is None or target_N is None:
        raise ConfigError("a classifier needs symbols and classes")
    blueprint = Blueprint(model=run.model, task="classify", sizes=data.sizes, classes=data.classes)
    models = [run.model.build(data.sizes) for _ in data.classes]
    for number, model in enumerate(models):
        model.fit(tokens.select(target_N == number))
    counts_C = np.bincount(target_N, minlength=len(models))
    bayes = Bayes(blueprint, models, np.log(counts_C / counts_C.sum()), 1.0)
    bayes.sharpness = _sharpness(bayes, data.valid)
    return bayes


def _sharpness(bayes: Bayes, valid: Examples) -> float:
    """The exponent with the least cross-entropy on the validation part: symbols are not independent, so s < 1."""
    if valid.tokens is None or valid.targets is None or not len(valid):
        return 1.0
    likelihood_NC, row_N = bayes.likelihoods(valid.tokens), np.arange(len(valid))

    def nll(sharpness: float) -> float:
        return -float(_posterior(likelihood_NC, bayes.prior_C, sharpness)[row_N, valid.targets].mean())

    return min((float(s) for s in np.geomspace(1e-3, 1, 61)[::-1]), key=nll)


def _posterior(likelihood_NC: np.ndarray, prior_C: np.ndarray, sharpness: float) -> np.ndarray:
    joint_NC = sharpness * likelihood_NC + prior_C
    return joint_NC - np.logaddexp.reduce(joint_NC, axis=1, keepdims=True)


def unseen_of(data: Prepared) -> float | None:
    """Mass of a symbol that training never saw; None where training itself holds <unk>."""
    if data.tokenizer is None or data.train.tokens is None:
        return None
    if bool((data.train.tokens.flat == SPECIALS.unk).any()):
        return None
    return unseen_mass(data.tokenizer.vocabulary.counts)


def _tokens(examples: Examples) -> Ragged:
    tokens = examples.whole().tokens
    if tokens is None:
        raise ConfigError("this model reads symbols, and these data are real values")
    return tokens


def _line(examples: Examples, number: int) -> np.ndarray:
    """One sequence of ids with its ends put in."""
    (row,) = _scoring.rows_of(examples[number : number + 1])
    return row.tokens if row.tokens is not None else np.zeros(0, np.int64)


def _sums(ragged: Ragged) -> np.ndarray:
    return np.add.reduceat(ragged.values, ragged.offsets[:-1]) if len(ragged) else np.zeros(0)


def _later(outputs: Outputs, name: str) -> Any:
    return lambda: outputs[name]
