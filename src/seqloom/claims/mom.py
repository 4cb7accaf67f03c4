"""Claim: several memories behind a router recall more than one memory of the size that is at work.

(a) Exact, in float64: steps are the whole, routed memories are one loop each, and one memory alone is the gated delta
rule. (b) A memory that is not chosen changes by nothing, whatever is written elsewhere. (c) Recall of many pairs: four
memories of which two are taken, and the shared one, beside one memory as large as the three at work, and one as large
as all five; equal parameters, the MLPs making up for the difference. (d) The largest share of positions that one memory
gets, learnt with the balance loss and without.

Thresholds are those of the specification. What was seen stands on the page.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._training import answers, stack
from seqloom.core.layout import Layout
from seqloom.data.synthetic.mqar import MQAR
from seqloom.layers.router import Router
from seqloom.mixers._base import Mixer
from seqloom.mixers.memory import mom as mixture
from seqloom.mixers.memory.gated_delta import GatedDelta
from seqloom.models.backbone import levelled
from seqloom.objectives.tag import Tag
from seqloom.training.loop import Loop
from seqloom.training.prepare import prepare
from seqloom.training.run import Run

WIDTH, LAYERS, HEADS, PARAMETERS = 48, 2, 2, 46_000
KEYS = 1 / 6
"""Key channels of one memory, as a multiple of the width: four a head."""
AT_WORK, ALL = 3, 5


class MoM(Claim):
    """Mixture of memories: exact, undisturbed, recall, load."""

    source = Source(
        title="MoM: linear sequence modeling with mixture-of-memories",
        authors="Du, Sun, Lan, Hu and Cheng",
        year=2025,
        arxiv="2502.13685",
    )
    statement = (
        "Memories that are written by those alone that are routed to them do not disturb each other, and recall more "
        "than one memory of the size that is at work, at linear cost and constant state."
    )
    paper = "models of 380M and 1.3B parameters, 15B and 100B tokens, recall-intensive tasks"
    here = "16 pairs in 64 columns, two layers of width 48, 600 steps of 32; some six minutes a seed on one core"
    steps = 600

    def arms(self) -> dict[str, Run | Count]:
        """Two counts, and one training an arm."""
        several = self.several()
        unbalanced = replace(several, router=replace(several.router, balance=0.0))
        return {
            "exact": Count(exact, config={"part": "exact"}),
            "undisturbed": Count(undisturbed, config={"part": "undisturbed"}),
            "mom": self.arm(several),
            "unbalanced": self.arm(unbalanced),
            "at_work": self.arm(self.one(AT_WORK)),
            "all": self.arm(self.one(ALL)),
        }

    @staticmethod
    def several() -> mixture.MoM.Config:
        """Four memories, two of them and the shared one at work."""
        return mixture.MoM.Config(router=Router.Config(outlets=4, top=2), heads=HEADS, key_factor=KEYS)

    @staticmethod
    def one(times: int) -> GatedDelta.Config:
        """One memory with ``times`` as many key channels."""
        return GatedDelta.Config(heads=HEADS, key_factor=times * KEYS)

    def arm(self, mixer: Mixer.Config) -> Count:
        """The mixer is the difference."""
        backbone = stack(mixer, WIDTH, layers=LAYERS, mlp=levelled((mixer,), LAYERS, WIDTH, PARAMETERS))
        run = answers(
            MQAR.Config(vocab=64, length=64, pairs=16, noise=False),
            Tag.Config(),
            backbone,
            self.steps,
            lr=5e-3,
            tie=False,
        )

        def measure(seed: int) -> Mapping[str, float]:
            loop = Loop(own := replace(run, seed=seed), data := prepare(own))
            loop.run()
            size = sum(parameter.numel() for parameter in loop.model.parameters())
            state = mixer.build(WIDTH).state_bytes(64)
            return {
                "accuracy": loop.evaluate(data.test)["accuracy"],
                "parameters": size,
                "state_bytes": LAYERS * state,
                "load": load(loop, own),
            }

        return Count(measure, config={"run": run.to_json()})

    def findings(self, got: Results) -> Iterator[Finding]:
        """The four parts."""
        own, unbalanced, work, whole = (got[name] for name in ("mom", "unbalanced", "at_work", "all"))
        yield Finding("largest difference of steps to the whole", got["exact"].steps, "<=", 1e-10)
        yield Finding("largest difference to one loop a memory", got["exact"].loops, "<=", 1e-10)
        yield Finding("largest difference of one memory to the gated delta rule", got["exact"].single, "<=", 1e-10)
        yield Finding("largest change of a memory that was not chosen", got["undisturbed"].change, "==", 0.0)
        yield Finding("recall ahead of one memory as large as those at work", own.accuracy - work.accuracy, ">=", 0.15)
        yield Finding("recall behind one memory as large as all", whole.accuracy - own.accuracy, "<=", 0.02)
        sizes = [arm.parameters for arm in (own, work, whole)]
        yield Finding("largest of the three over the smallest, in parameters", max(sizes) / min(sizes), "<=", 1.05)
        yield Finding("largest share of one memory, with the balance loss", own.load, "<=", 0.5)
        yield Finding("largest share without it, over that with it", unbalanced.load / own.load, ">=", 1.0)


@torch.no_grad()
def exact(seed: int) -> Mapping[str, float]:
    """Identities in float64."""
    torch.manual_seed(seed)
    mixer = mixture.MoM(12, mixture.MoM.Config(heads=2)).double().eval()
    x_BTD = torch.randn(2, 43, 12).double()
    whole_BTD = mixer(x_BTD)[0]
    state, pieces = mixer.initial_state(2), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return {
        "steps": float((torch.cat(pieces, 1) - whole_BTD).abs().max()),
        "loops": float((loops(mixer, x_BTD) - whole_BTD).abs().max()),
        "single": single(x_BTD),
    }


def loops(mixer: mixture.MoM, x_BTD: Tensor) -> Tensor:
    """Every memory by itself, over the positions that chose it."""
    chosen_BTK, weight_BTK = mixer.router(x_BTD)
    B, T, _ = x_BTD.shape
    total_BTV = torch.zeros(B, T, mixer.sizes.values, dtype=x_BTD.dtype)
    for b in range(B):
        for m in range(mixer.memories):
            shared = m == mixer.config.router.outlets
            hit_TK = chosen_BTK[b] == m
            places = torch.arange(T) if shared else hit_TK.any(1).nonzero().flatten()
            own_1LD = x_BTD[b : b + 1, places]
            line_1LE = torch.cat([mixer.query(own_1LD), own_1LD @ mixer.write[m]], 2)
            fresh: Any = mixer.initial_state(1)
            o_1LV, _, _ = mixer._remember(line_1LE, fresh.s_BMHKV[:, m], fresh.inputs_BMWE[:, m], None)
            weight_L = torch.ones(len(places)) if shared else (weight_BTK[b] * hit_TK).sum(1)[places]
            total_BTV[b, places] += o_1LV[0] * weight_L[:, None].to(o_1LV.dtype)
    o_BTV = mixer.norm(total_BTV.unflatten(2, (mixer.sizes.heads, -1))).flatten(2)
    return mixer.out(o_BTV * torch.nn.functional.silu(mixer.gate(x_BTD)))


def single(x_BTD: Tensor) -> float:
    """Largest difference of a mixture of one to the gated delta rule with the same weights."""
    width = x_BTD.shape[2]
    options: dict[str, Any] = {"router": Router.Config(outlets=1, top=1), "shared": False, "heads": 2}
    several, one = (
        mixture.MoM(width, mixture.MoM.Config(**options)).double(),
        GatedDelta(width, GatedDelta.Config(heads=2)),
    )
    one, maps_EK = one.double(), several.write[0].T
    edge = several.sizes.keys + several.sizes.values
    one.qkv.weight.copy_(torch.cat([several.query.weight, maps_EK[:edge]]))
    one.gates.weight.copy_(maps_EK[edge:])
    for name in ("conv", "norm", "gate", "out", "writing"):
        getattr(one, name).load_state_dict(getattr(several, name).state_dict())
    return float((several(x_BTD)[0] - one(x_BTD)[0]).abs().max())


@torch.no_grad()
def undisturbed(seed: int) -> Mapping[str, float]:
    """Largest change of memories while only others are chosen, over forty positions."""
    torch.manual_seed(seed)
    mixer = mixture.MoM(12, mixture.MoM.Config(router=Router.Config(outlets=4, top=1), heads=2, shared=False)).eval()
    x_BTD, worst = torch.randn(1, 40, 12), 0.0
    state: Any = mixer.initial_state(1)
    for x_B1D in x_BTD.split(1, 1):
        chosen = int(mixer.router(x_B1D).chosen_BTK)
        after: Any = mixer(x_B1D, state, layout=Layout())[1]
        others = [m for m in range(4) if m != chosen]
        worst = max(worst, float((after.s_BMHKV[:, others] - state.s_BMHKV[:, others]).abs().max()))
        state = after
    return {"change": worst}


@torch.no_grad()
def load(loop: Loop, run: Run) -> float:
    """Largest share of the choices that fell on one memory, in any layer, over test examples; 1 where there is one."""
    mixers = [part for part in loop.model.modules() if isinstance(part, mixture.MoM)]
    counts = [torch.zeros(part.config.router.outlets) for part in mixers]

    def tally(at: int) -> Any:
        def hook(module: Any, inputs: Any, made: Any) -> None:
            chosen_N = made.chosen_BTK[made.chosen_BTK >= 0]
            counts[at] += torch.bincount(chosen_N, minlength=len(counts[at]))

        return hook

    handles = [part.router.register_forward_hook(tally(at)) for at, part in enumerate(mixers)]
    loop.evaluate(prepare(run).test)
    for handle in handles:
        handle.remove()
    return max((float(count.max() / count.sum()) for count in counts), default=1.0)
