"""The one interface of every objective: corrupt an example, make a batch, add up a loss.

A loss is a dict of terms (sum, count, weight), never an average: the loop divides the summed terms by the global
count over accumulation steps and ranks, so that unequal lengths cannot bias it.

Shapes: B rows, T time, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqloom.core.batch import Batch, Example
from seqloom.core.component import Component, Value
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.outputs import Outputs
from seqloom.core.specials import SPECIALS, Specials


class Term(NamedTuple):
    """One part of a loss."""

    sum: Tensor
    """Sum over what counts, with gradient."""
    count: Tensor
    """How much counts: summed over the whole step before dividing."""
    weight: float = 1.0
    """Factor in the total; 0 = only reported."""


@dataclass(frozen=True, kw_only=True)
class RolloutSpec(Value):
    """Samples that an objective needs of the current model; the loop makes them by the decoding protocol."""

    decoder: str = "sample"
    """Name of the decoder."""
    samples: int = 1
    """Continuations a row."""
    limit: int = 64
    """Most new tokens."""
    every: int = 1
    """Steps between refreshes."""

    def __post_init__(self) -> None:
        """ConfigError where nothing would be sampled."""
        if min(self.samples, self.limit, self.every) < 1:
            raise ConfigError(f"rollouts need samples, limit and every of at least 1, not {self}")


class Objective(Component):
    """Base of every objective."""

    rollouts: ClassVar[RolloutSpec | None] = None
    """Samples that ``batch.rollouts`` holds; the model's outputs on them are ``outputs["rollouts"]``."""
    causal: ClassVar[bool] = False
    """True where a model that sees what follows a position would only copy the answer."""
    batch_coupled: ClassVar[bool] = False
    """True where a term depends on the other rows of the batch (in-batch negatives)."""
    margin: ClassVar[int] = 0
    """Columns that an example takes in a batch beyond those of next-token training (``Examples.lengths``)."""
    output: ClassVar[str] = "logits"
    """The model's output that the loss is a function of."""
    terms: ClassVar[tuple[str, ...]] = ("nll",)
    """Names of the terms with a weight."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of an objective."""

    specials: ClassVar[Specials] = SPECIALS
    """The ids that mean something."""

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config: Any = config if config is not None else type(self).Config()

    def corrupt(self, example: Example, rng: np.random.Generator) -> Example:
        """A changed copy; numpy alone, a pure function of the example and ``rng``. The default changes nothing."""
        return example

    def batch(self, examples: Sequence[Example], *, rows: Sequence[int] | None = None) -> Batch:
        """Rows for a model; examples with the same row number are packed into one row, in order."""
        raise TypeError(f"{type(self).__name__} makes no batches")

    def prompts(self, batch: Batch) -> Batch:
        """What rollouts continue, for objectives that declare them: each row's first token, under its context."""
        if batch.layout.starts_BT is not None or batch.layout.side != "right":
            raise ConfigError("rollouts continue one example a row, padded to the right: train without packed rows")
        return Batch(tokens_BT=batch.tokens[:, :1], context=batch.context, index_B=batch.index_B)

    def count(self, batch: Batch, term: str) -> Tensor:
        """What a term of this batch counts; known before the forward pass, since a step divides by its sum."""
        if batch.weights is None:
            raise ConfigError(f"{type(self).__name__} needs weights to count by")
        return batch.weights.sum()

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Terms of the loss; names are stable, so that they can be logged and weighted."""
        raise TypeError(f"{type(self).__name__} has no loss")


def total(terms: Mapping[str, Term]) -> Tensor:
    """The loss of one batch by itself: weighted sum of the terms' means."""
    parts = [term.weight * term.sum / divisor(term.count) for term in terms.values() if term.weight]
    if not parts:
        raise ConfigError("every term of the loss has weight 0: nothing would be learnt")
    return torch.stack(parts).sum()


def divisor(count: Tensor) -> Tensor:
    """What a sum is divided by: its count, which may be a fraction where weights are; 1 where nothing counts."""
    return torch.where(count > 0, count, 1)


class Placed(NamedTuple):
    """Where examples lie in the rows of a batch."""

    row_E: np.ndarray
    begin_E: np.ndarray
    width_E: np.ndarray
    lengths_B: np.ndarray
    packed: bool

    def layout(self, starts_BT: np.ndarray) -> Layout:
        """Lengths where rows are padded; where examples begin, if a row holds several."""
        full = bool((self.lengths_B == starts_BT.shape[1]).all())
        return Layout(
            lengths_B=None if full else torch.from_numpy(self.lengths_B),
            starts_BT=torch.from_numpy(starts_BT) if self.packed else None,
        )

    def numbers(self, examples: Sequence[Example]) -> Tensor:
        """Number of the first example in every row (B,)."""
        first_B = np.unique(self.row_E, return_index=True)[1]
        return torch.tensor([examples[i].index for i in first_B], dtype=torch.long)


class Rows:
    """The arrays of a batch whose targets stand in the columns of its symbols, to be filled in place."""

    def __init__(self, at: Placed, targets: type[np.generic], fill: float = 0) -> None:
        """Nothing but pads, targets of ``fill`` and weights of 0."""
        self.at = at
        shape = (len(at.lengths_B), int(at.lengths_B.max(initial=0)))
        self.tokens_BT = np.full(shape, SPECIALS.pad, np.int64)
        self.targets_BT, self.weights_BT = np.full(shape, fill, targets), np.zeros(shape, np.float32)
        self.starts_BT = np.zeros(shape, bool)
        for row, begin, width in zip(at.row_E, at.begin_E, at.width_E, strict=True):
            self.starts_BT[row, begin : begin + 1] = width > 0

    def batch(self, examples: Sequence[Example]) -> Batch:
        """The rows, with the values of the examples beside their symbols."""
        return Batch(
            tokens_BT=torch.from_numpy(self.tokens_BT),
            values_BTC=beside(examples, self.at, self.tokens_BT.shape[1]),
            targets=torch.from_numpy(self.targets_BT),
            weights=torch.from_numpy(self.weights_BT),
            layout=self.at.layout(self.starts_BT),
            index_B=self.at.numbers(examples),
        )


def one_sequence(examples: Sequence[Example], name: str) -> None:
    """ConfigError where examples hold a second sequence, which would be left out without a word."""
    for example in examples:
        if example.context is not None:
            raise ConfigError(f"{name} reads one sequence: example {example.index} has a second one")


def steps(example: Example) -> int:
    """Symbols of an example, or steps of one that has values alone."""
    return len(example.tokens) if example.values is None else len(example.values)


def beside(examples: Sequence[Example], at: "Placed", width: int) -> Tensor | None:
    """Values (B, T, C) in the columns of their symbols; zeros under bos, eos and pads; None where there are none.

    An example that opens has one column before its first symbol; a row that is cut short loses its last value, which
    is no input.
    """
    first = next((example.values for example in examples if example.values is not None), None)
    if first is None:
        return None
    values_BTC = np.zeros((len(at.lengths_B), width, first.shape[1]), np.float32)
    for example, row, begin, end in zip(examples, at.row_E, at.begin_E, at.begin_E + at.width_E, strict=True):
        if example.values is None or example.values.shape[1] != first.shape[1]:
            raise ConfigError(f"example {example.index} has other inputs than example {examples[0].index}")
        room = values_BTC[row, begin + int(example.opens) : end]
        room[: len(example.values)] = example.values[: len(room)]
    return torch.from_numpy(values_BTC)


def place(widths: Sequence[int], rows: Sequence[int] | None) -> Placed:
    """Put examples one after another into their rows; without ``rows``, one a row."""
    width_E = np.asarray(widths, dtype=np.int64)
    row_E = np.arange(len(width_E)) if rows is None else np.unique(np.asarray(rows), return_inverse=True)[1]
    lengths_B = np.zeros(int(row_E.max(initial=-1)) + 1, dtype=np.int64)
    begin_E = np.zeros(len(width_E), dtype=np.int64)
    for number, (row, width) in enumerate(zip(row_E, width_E, strict=True)):
        begin_E[number] = lengths_B[row]
        lengths_B[row] += width
    return Placed(row_E, begin_E, width_E, lengths_B, packed=len(lengths_B) < len(width_E))
