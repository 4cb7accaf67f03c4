"""Trainings that several claims share: one network and one task each, the mixer being the difference.

A classifier of digits, copies and lookups, and a novel as bytes with symbols hidden or the next one asked.
"""

from typing import Any

from seqloom.data.batching import Batching
from seqloom.data.synthetic.digits import Digits
from seqloom.layers.mlp import MLP
from seqloom.mixers._base import Mixer
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM
from seqloom.models.encoder import Encoder
from seqloom.objectives._base import Objective
from seqloom.objectives.classify import Classify
from seqloom.tokenizers.bytes import Bytes
from seqloom.training.budget import Budget
from seqloom.training.optimiser import AdamW
from seqloom.training.run import Run, Stopping
from seqloom.training.source import FileSource

PLAIN = Stopping(looks=1, patience=0)
"""The model after the last step, whatever came before."""


def stack(mixer: Mixer.Config, width: int, *, layers: int = 2, mlp: MLP.Config | None = None) -> Backbone.Config:
    """Layers of one mixer."""
    return Backbone.Config(width=width, layers=layers, mixers=(mixer,), mlp=mlp)


def digits(backbone: Backbone.Config, steps: int, *, repeat: int = 1, lr: float = 3e-3) -> Run:
    """Pictures pixel by pixel: 64 ``repeat``^2 columns."""
    return Run(
        data=Digits.Config(repeat=repeat),
        task="classify",
        model=Encoder.Config(backbone=backbone),
        objective=Classify.Config(),
        batch=Batching(rows=16),
        optimiser=AdamW(lr=lr),
        budget=Budget(steps=steps),
        stopping=PLAIN,
    )


def answers(
    task: Any,
    objective: Objective.Config,
    backbone: Backbone.Config,
    steps: int,
    *,
    rows: int = 32,
    lr: float = 3e-3,
    positions: int = 0,
    tie: bool = True,
) -> Run:
    """A synthetic task whose answers are symbols."""
    return Run(
        data=task,
        model=CausalLM.Config(backbone=backbone, positions=positions, tie=tie),
        objective=objective,
        batch=Batching(rows=rows),
        optimiser=AdamW(lr=lr),
        budget=Budget(steps=steps),
        stopping=PLAIN,
    )


def text(objective: Objective.Config, backbone: Backbone.Config, steps: int, *, lr: float = 3e-3) -> Run:
    """Lines of a novel as bytes in windows of 128: the next byte asked, or hidden ones."""
    return Run(
        data=FileSource(path="sample:austen"),
        model=CausalLM.Config(backbone=backbone),
        tokenizer=Bytes.Config(),
        objective=objective,
        batch=Batching(rows=16, window=128),
        optimiser=AdamW(lr=lr),
        budget=Budget(steps=steps),
        stopping=PLAIN,
    )
