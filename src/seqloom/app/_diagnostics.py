"""What a diagnosis consists of: the tasks at the size of a processor, and the model that every mixer is put into.

Two layers of width 64, each mixer followed by an MLP: the same sizes for every mixer, not the same parameters, since
what is asked is what a mechanism can do; or the same parameters, where the MLP makes up for what a mixer lacks. A task
is learnt at one length, judged at that length, and then at longer ones that training never held. Where lengths are
drawn (parity, words over a group), the first figure is of words exactly as long as training's longest ones, and the
longer ones are everything from there on.

Source: the sizes are those of Arora et al., 2023, arXiv:2312.04927 (two layers of width 64, 64 columns, 8 pairs), Gu
and Dao, 2023, arXiv:2312.00752 (induction, selective copying) and Grazzi et al., 2024, arXiv:2411.12537 (parity to
40), made smaller where a processor needs it: a vocabulary of 256, contexts of 64, words at most eight times as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from seqloom.core import discovery
from seqloom.core.component import Component
from seqloom.data.batching import Batching
from seqloom.data.synthetic._base import Task
from seqloom.data.synthetic.associative_recall import AssociativeRecall
from seqloom.data.synthetic.byte_text import ByteText
from seqloom.data.synthetic.delayed_copy import DelayedCopy
from seqloom.data.synthetic.digits import Digits
from seqloom.data.synthetic.induction import Induction
from seqloom.data.synthetic.listops import ListOps
from seqloom.data.synthetic.mqar import MQAR
from seqloom.data.synthetic.parity import Parity
from seqloom.data.synthetic.pathfinder import Pathfinder
from seqloom.data.synthetic.retrieval import Retrieval
from seqloom.data.synthetic.selective_copy import SelectiveCopy
from seqloom.data.synthetic.state_tracking import StateTracking
from seqloom.data.synthetic.string_copy import StringCopy
from seqloom.layers.mlp import MLP
from seqloom.mixers._base import Mixer
from seqloom.models.backbone import Backbone, levelled
from seqloom.models.causal_lm import CausalLM
from seqloom.models.encoder import Encoder
from seqloom.training.budget import Budget
from seqloom.training.run import Run, Stopping

WIDTH, LAYERS = 64, 2
LOOKS = 5
DEFAULT = ("mqar", "induction", "selective_copy", "parity", "s3")
"""Recall, lookup, choosing by content, and two machines: what tells the families of mixers apart."""


@dataclass(frozen=True)
class Diagnostic:
    """One task with the lengths beyond training."""

    task: Any
    """Config of the task as it is learnt."""
    longer: Mapping[str, Any] = field(default_factory=dict)
    """Its Configs at further lengths, by the length."""
    rows: int = 32
    """Examples of a batch."""


PARTS = {"valid": 250, "test": 500}


def _beyond(task: Any, name: str, lengths: tuple[int, ...], rows: int = 32) -> Diagnostic:
    """A task whose field ``name`` says the test length."""
    task = replace(task, **PARTS)
    return Diagnostic(task, {str(length): replace(task, **{name: length}) for length in lengths}, rows)


def _machine(name: str) -> Diagnostic:
    return _beyond(StateTracking.Config(machine=name, test_length=0), "test_length", (80,), 64)  # type: ignore[arg-type]


def _listops(shortest: int, longest: int) -> Task.Config:
    return ListOps.Config(depth=6, shortest=shortest, longest=longest, **PARTS)


DIAGNOSTICS: dict[str, Diagnostic] = {
    "mqar": _beyond(MQAR.Config(vocab=256, length=64, pairs=8), "test_length", (128, 256)),
    "induction": _beyond(Induction.Config(vocab=20, length=64), "test_length", (128, 512), 64),
    "associative_recall": _beyond(AssociativeRecall.Config(), "test_length", (40, 80), 64),
    "selective_copy": _beyond(SelectiveCopy.Config(vocab=16, keep=8, length=64), "test_length", (128, 256)),
    "delayed_copy": _beyond(DelayedCopy.Config(keep=10, delay=50), "test_delay", (100, 200)),
    "string_copy": _beyond(StringCopy.Config(length=20), "test_length", (40, 80)),
    "parity": _beyond(Parity.Config(length=40, test_length=0), "test_length", (160,), 64),
    "s3": _machine("s3"),
    "s5": _machine("s5"),
    "mod5": _machine("mod5"),
    "listops": Diagnostic(_listops(20, 80), {"80 to 160": _listops(80, 160)}),
    "digits": Diagnostic(Digits.Config()),
    "permuted_digits": Diagnostic(Digits.Config(permuted=True)),
    "pathfinder": Diagnostic(Pathfinder.Config(train=1_000, side=24, contour=4, distractors=1, **PARTS)),
    "byte_text": Diagnostic(ByteText.Config(train=2_000, length=256, **PARTS)),
    "retrieval": Diagnostic(Retrieval.Config(train=2_000, length=256, **PARTS)),
}


def run_of(
    diagnostic: Diagnostic, mixers: tuple[Mixer.Config, ...], budget: Budget, seed: int, parameters: int = 0
) -> Run:
    """The training of a mixer, or of several that take turns, on a task; 0 parameters = the usual channel mixer."""
    task: Any = diagnostic.task.owner
    layers = max(LAYERS, len(mixers))
    mlp = levelled(mixers, layers, WIDTH, parameters) if parameters else MLP.Config()
    backbone = Backbone.Config(width=WIDTH, layers=layers, mixers=mixers, mlp=mlp)
    model: Component.Config = CausalLM.Config(backbone=backbone)
    if task.task == "classify":
        model = Encoder.Config(backbone=backbone)
    objective: Any = discovery.get("objectives", task.objective)
    return Run(
        data=diagnostic.task,
        model=model,
        task=task.task,
        objective=objective.Config(),
        batch=Batching(rows=diagnostic.rows),
        budget=budget,
        stopping=Stopping(looks=LOOKS, patience=0, examples=0),
        seed=seed,
    )
