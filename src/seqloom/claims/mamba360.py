"""Claim: of the state-space family, filters read long rows that an LSTM does not, and choosing by content needs gates.

The survey has no mechanism of its own; its table is made again here. Every member that exists by name is put into the
same two layers, at a width that gives about the same number of parameters, and learns two things: digits pixel by pixel
(64 columns), and selective copying (32 columns, 4 symbols of 8). Parameters and state bytes stand beside the
accuracies in the results.

Two gates, those of the specification: every time-invariant member is ahead of the LSTM on digits, and only members
whose dynamics or gates read the input solve selective copying. What was seen stands on the page.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from torch import nn

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._training import answers, digits, stack
from seqloom.data.synthetic.selective_copy import SelectiveCopy
from seqloom.layers.mlp import MLP
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.conv.hyena import Hyena
from seqloom.mixers.conv.sgconv import SGConv
from seqloom.mixers.recurrent.lstm import LSTM
from seqloom.mixers.ssm.dss import DSS
from seqloom.mixers.ssm.gss import GSS
from seqloom.mixers.ssm.h3 import H3
from seqloom.mixers.ssm.liquid_s4 import LiquidS4
from seqloom.mixers.ssm.lru import LRU
from seqloom.mixers.ssm.mamba import Mamba
from seqloom.mixers.ssm.rg_lru import RGLRU
from seqloom.mixers.ssm.s4 import S4
from seqloom.mixers.ssm.s4d import S4D
from seqloom.models.backbone import Backbone
from seqloom.objectives.next_token import NextToken
from seqloom.training.loop import Loop
from seqloom.training.prepare import prepare
from seqloom.training.run import Run

MEMBERS: dict[str, Mixer.Config] = {
    "s4": S4.Config(),
    "s4d": S4D.Config(),
    "dss": DSS.Config(),
    "lru": LRU.Config(),
    "sgconv": SGConv.Config(),
    "gss": GSS.Config(state=64),
    "liquid_s4": LiquidS4.Config(),
    "h3": H3.Config(),
    "hyena": Hyena.Config(),
    "rg_lru": RGLRU.Config(),
    "mamba": Mamba.Config(),
    "lstm": LSTM.Config(),
    "attention": Attention.Config(),
}
INVARIANT = ("s4", "s4d", "dss", "lru", "sgconv")
"""The same filter whatever the input: what reads the input is the MLP alone, position by position."""
TARGET = 50_000
"""Parameters of each network, to about a tenth."""
WIDTHS = range(28, 72, 4)


class Mamba360(Claim):
    """The survey's table on two tasks."""

    source = Source(
        title="Mamba-360: survey of state space models as transformer alternative for long sequence modelling",
        authors="Patro and Agneeswaran",
        year=2024,
        arxiv="2404.16112",
    )
    statement = (
        "State-space models of every kind read long rows that an LSTM does not learn, and only those whose dynamics "
        "depend on the input copy selectively."
    )
    paper = "tables of published figures: Long Range Arena, ImageNet, WikiText"
    here = (
        "digits as 64 columns, 300 steps of 16, and selective copying at 32 columns, 1000 steps of 32; two layers of "
        "about 50,000 parameters; some eight minutes a seed on one core"
    )
    reading = 300
    copying = 1000

    def arms(self) -> dict[str, Run | Count]:
        """A member and a task each, and what they weigh."""
        return {
            **{f"{name}_digits": self.digits(mixer) for name, mixer in MEMBERS.items()},
            **{f"{name}_copy": self.copy(mixer) for name, mixer in MEMBERS.items()},
        }

    def digits(self, mixer: Mixer.Config) -> Count:
        """The mixer is the difference."""
        return self.measured(digits(fitted(mixer), self.reading))

    def copy(self, mixer: Mixer.Config) -> Count:
        """The mixer is the difference; the head has a matrix of its own."""
        task = SelectiveCopy.Config(vocab=8, keep=4, length=32)
        return self.measured(answers(task, NextToken.Config(), fitted(mixer), self.copying, lr=5e-3, tie=False))

    def measured(self, run: Run) -> Count:
        """A training, and what its layers weigh."""

        def measure(seed: int) -> Mapping[str, float]:
            own = replace(run, seed=seed)
            loop = Loop(own, data := prepare(own))
            loop.run()
            layers: nn.Module = loop.model.backbone  # type: ignore[assignment]
            state = sum(block.mixer.state_bytes(64) for block in layers.blocks)  # type: ignore[union-attr]
            size = sum(parameter.numel() for parameter in layers.parameters())
            return {"accuracy": loop.evaluate(data.test)["accuracy"], "parameters": size, "state_bytes": state}

        return Count(measure, config={"run": run.to_json()})

    def findings(self, got: Results) -> Iterator[Finding]:
        """Digits first."""
        lstm = got["lstm_digits"].accuracy
        worst = min(INVARIANT, key=lambda name: got[f"{name}_digits"].accuracy)
        ahead = got[f"{worst}_digits"].accuracy - lstm
        yield Finding("digits: the least of the time-invariant members ahead of the LSTM", ahead, ">", 0.0)
        best = max(INVARIANT, key=lambda name: got[f"{name}_copy"].accuracy)
        yield Finding("copying: Mamba", got["mamba_copy"].accuracy, ">=", 0.90)
        yield Finding("copying: the best of the time-invariant members", got[f"{best}_copy"].accuracy, "<=", 0.90)
        sizes = [got[f"{name}_copy"].parameters for name in MEMBERS]
        yield Finding("largest of all over the smallest, in parameters", max(sizes) / min(sizes), "<=", 1.25)


def fitted(mixer: Mixer.Config) -> Backbone.Config:
    """Two layers at the width whose parameters come nearest to the target."""
    made = [stack(mixer, width, mlp=MLP.Config()) for width in WIDTHS]
    return min(made, key=lambda config: abs(_size(config) - TARGET))


@cache
def _size(config: Backbone.Config) -> int:
    return sum(parameter.numel() for parameter in config.build().parameters())
