"""The sizes that a training gets when nobody names them: one function of the data, written down here.

    what is counted            small        middle        large
    symbols to learn from      < 200 000    < 5 million   more
    width                      64           128           256
    layers                     2            2             4
    columns a batch            512          1024          8192, a quarter at a time
    peak learning rate         5e-3         5e-3          1e-3

    window = 128 columns where sequences are cut      dropout = 0.1 below 200 000 symbols, else 0
    task classify: batches of about 16 sequences, at most 8192 columns, and half the learning rate

The width is that of attention; every other mixer gets the width, a multiple of 8, at which the whole model has the
closest number of parameters, so that a comparison is one of mechanisms and not of sizes.
"""

from dataclasses import dataclass, field
from functools import cache

import torch

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.batching import Batching
from seqloom.layers.gaussian import Gaussian
from seqloom.layers.quantiles import Quantiles
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.models.causal_regression import CausalRegression
from seqloom.models.causal_values import CausalValues
from seqloom.models.encoder import Encoder
from seqloom.training.optimiser import AdamW

SMALL, MIDDLE = 200_000, 5_000_000
WINDOW = 128
PIECES = 4
"""Parts of a large batch that go one after another, so that what the backward pass keeps stays small."""
HEADS = {"gaussian": Gaussian, "quantiles": Quantiles}


@dataclass(frozen=True)
class Facts:
    """What the data say about a good size."""

    symbols: int
    """Symbols of the training part."""
    longest: int
    """Symbols of its longest sequence."""
    typical: int = 0
    """Mean of its lengths."""
    sizes: Sizes = field(default_factory=Sizes)
    """Ends of the model."""
    task: str = "next"
    """What is asked."""
    head: str = "gaussian"
    """Of real values, and of numbers that are told: the kind of distribution."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of its batches."""

    width: int
    layers: int
    batch: Batching
    optimiser: AdamW
    dropout: float
    accumulate: int = 1


def shape_for(facts: Facts) -> Shape:
    """The table of the module's docstring."""
    rank = (facts.symbols >= SMALL) + (facts.symbols >= MIDDLE)
    pieces = PIECES if rank == 2 and facts.task == "next" else 1
    width, layers, columns, lr = ((64, 2, 512, 5e-3), (128, 2, 1024, 5e-3), (256, 4, 8192, 1e-3))[rank]
    if facts.task == "classify":
        columns, lr = min(8192, max(columns, 16 * (facts.typical + 2))), lr / 2
    cut = facts.task != "classify" and facts.longest + 1 > 4 * WINDOW
    return Shape(
        width=width,
        layers=layers,
        batch=Batching(tokens=columns // pieces, window=WINDOW if cut else 0),
        accumulate=pieces,
        optimiser=AdamW(lr=lr),
        dropout=0.1 if rank == 0 else 0.0,
    )


def model_of(mixers: str, facts: Facts, shape: Shape) -> Component.Config:
    """A language model, an encoder or a regression over mixers, with as many parameters as attention would have."""
    if mixers == "attention":
        return _model(mixers, facts, shape, shape.width)
    target = parameters_of(_model("attention", facts, shape, shape.width), facts.sizes)
    widths = range(max(8, shape.width // 4), shape.width * 2 + 1, 8)
    sized = [(abs(count - target), width) for width in widths if (count := _count(mixers, facts, shape, width))]
    if not sized:
        raise ConfigError(f"no width from {widths[0]} to {widths[-1]} suits {mixers!r}")
    return _model(mixers, facts, shape, min(sized)[1])


def parameters_of(model: Component.Config, sizes: Sizes) -> int:
    """Parameters that a model holds, shared ones once; its weights are not kept."""
    with torch.random.fork_rng(devices=[]):
        return sum(parameter.numel() for parameter in model.build(sizes).parameters())


def _model(mixers: str, facts: Facts, shape: Shape, width: int) -> Component.Config:
    kinds = pattern(mixers)
    layers = max(shape.layers, len(kinds))
    backbone = Backbone.Config(width=width, layers=layers, mixers=kinds, dropout=shape.dropout)
    if facts.task == "classify":
        return Encoder.Config(backbone=backbone, dropout=shape.dropout)
    if facts.task == "regress":
        return CausalRegression.Config(backbone=backbone, head=HEADS[facts.head].Config(), dropout=shape.dropout)
    if facts.sizes.values:
        return CausalValues.Config(backbone=backbone, head=HEADS[facts.head].Config(), dropout=shape.dropout)
    return CausalLM.Config(backbone=backbone, dropout=shape.dropout)


@cache
def _count(mixers: str, facts: Facts, shape: Shape, width: int) -> int:
    """Parameters at a width, 0 where a mixer refuses it (heads that do not divide it)."""
    try:
        return parameters_of(_model(mixers, facts, shape, width), facts.sizes)
    except ConfigError:
        return 0
