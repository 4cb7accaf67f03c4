"""Claim: the mLSTM is one map in four forms, both strands of DNA need one set of weights, and the sLSTM tracks states.

(a) The mLSTM cell whole, in chunks and step by step against its parallel form, in float64 and float32, with gates at
their start and driven to +-60; both directions with one normaliser against the sum over all pairs. (b) A model that is
built around ``reverse_complement`` gives on the other strand the same outputs, turned, whatever its weights; without
it, it does not. (c) Parity learnt up to 40 bits and judged on 41 to 256: sLSTM beside mLSTM, Mamba and attention.

Language models of DNA, proteins and molecules, which the paper is about, belong to the biological models and are not
here. Thresholds are those of the specification. What was seen stands on the page.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._training import answers, stack
from seqloom.data.synthetic.parity import Parity
from seqloom.kernels.decay_attention import normalised_decay_attention
from seqloom.layers.mlp import MLP
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent import _matrix_memory
from seqloom.mixers.recurrent.mlstm import MLSTM
from seqloom.mixers.recurrent.slstm import SLSTM
from seqloom.mixers.ssm.mamba import Mamba
from seqloom.mixers.wrappers.reverse_complement import ReverseComplement
from seqloom.objectives.tag import Tag
from seqloom.training.run import Run

PUSHED = 60.0


class BioXLSTMMixers(Claim):
    """xLSTM's mixers: forms, strands, states."""

    source = Source(
        title="Bio-xLSTM: generative modeling, representation and in-context learning of biological and chemical "
        "sequences",
        authors="Schmidinger, Schneckenreiter, Seidl, Schimunek, Hoedt, Brandstetter, Mayr, Luukkonen, Hochreiter and "
        "Klambauer",
        year=2024,
        arxiv="2411.04165",
    )
    statement = (
        "The mLSTM trains in parallel and generates by steps of one map, sees both directions in linear time, and can "
        "be made equivariant to the reverse complement; the sLSTM tracks states beyond the lengths of training."
    )
    paper = "models of DNA (2M to 4M parameters), proteins and molecules; parity to 256 in the xLSTM paper"
    here = "cells of 33 positions; parity, two layers of width 32, 800 steps of 32; some two minutes a seed"
    steps = 800

    def arms(self) -> dict[str, Run | Count]:
        """Two that are counted, four that learn parity."""
        return {
            "forms": Count(forms, config={"part": "forms"}),
            "strands": Count(strands, config={"part": "strands"}),
            "slstm": self.arm(SLSTM.Config(conv=1)),
            "mlstm": self.arm(MLSTM.Config(heads=2)),
            "mamba": self.arm(Mamba.Config()),
            "attention": self.arm(Attention.Config()),
        }

    def arm(self, mixer: Mixer.Config) -> Run:
        """The mixer is the difference."""
        task = Parity.Config(length=40, test_length=256)
        return answers(task, Tag.Config(), stack(mixer, 32, mlp=MLP.Config()), self.steps, lr=5e-3)

    def findings(self, got: Results) -> Iterator[Finding]:
        """The three parts."""
        for name, bound in (("double", 1e-9), ("single", 1e-4)):
            yield Finding(f"largest difference between the forms, {name} precision", got["forms"][name], "<=", bound)
            pushed = got["forms"][f"{name}_pushed"]
            yield Finding(f"the same with gates at 60, {name} precision", pushed, "<=", bound)
        yield Finding("both directions against the sum over all pairs", got["forms"].both, "<=", 1e-9)
        yield Finding("difference between the strands, with both read", got["strands"].read, "<=", 1e-12)
        yield Finding("difference between the strands, with one read", got["strands"].unread, ">=", 1e-2)
        yield Finding("parity beyond training: accuracy of the sLSTM", got["slstm"].accuracy, ">=", 0.95)
        for other in ("mlstm", "mamba", "attention"):
            yield Finding(f"parity beyond training: accuracy of {other}", got[other].accuracy, "<=", 0.65)


@torch.no_grad()
def forms(seed: int) -> Mapping[str, float]:
    """Largest difference over the largest output."""
    found = {}
    for dtype, name in ((torch.float64, "double"), (torch.float32, "single")):
        for pushed, suffix in ((0.0, ""), (PUSHED, "_pushed")):
            torch.manual_seed(seed)
            found[f"{name}{suffix}"] = _forms(dtype, pushed)
    torch.manual_seed(seed)
    q, k, v, f, i = _inputs(torch.float64, 0.0)
    found["both"] = _far(_matrix_memory.both_ways(q, k, v, f, i), _parallel(q, k, v, f, i, both=True))
    return found


def _inputs(dtype: torch.dtype, pushed: float) -> tuple[Tensor, ...]:
    """Queries, keys, values and the gates' logarithms; pushed ones lie at one end or the other."""
    q, k, v = (torch.randn(2, 33, 2, 4, dtype=torch.float64) for _ in range(3))
    f, i = (torch.randn(2, 33, 2, dtype=torch.float64) for _ in range(2))
    f, i = (gate + pushed * torch.sign(torch.randn_like(gate)) for gate in (f, i))
    return tuple(value.to(dtype) for value in (q, k, v, logsigmoid(f), i))


def _forms(dtype: torch.dtype, pushed: float) -> float:
    given = _inputs(dtype, pushed)
    q, k, v, f, i = (value.double() for value in given)
    want = _parallel(q, k, v, f, i)

    def run(width: int) -> Tensor:
        """In pieces of so many positions."""
        new = given[0].new_zeros
        state: tuple[Tensor, ...] = (new(2, 2, 4, 4), new(2, 2, 4), new(2, 2))
        pieces = []
        for begin in range(0, 33, width):
            here = (value[:, begin : begin + width] for value in given)
            y, *state = normalised_decay_attention(*here, *state)  # type: ignore[assignment, arg-type]
            pieces.append(y)
        return torch.cat(pieces, 1)

    def stepped() -> Tensor:
        new = given[0].new_zeros
        memory, pieces = (new(2, 2, 4, 4), new(2, 2, 4), new(2, 2)), []
        for t in range(33):
            q, k, v, f, i = (value[:, t : t + 1] for value in given)
            y, *memory = _matrix_memory.step((q, k, v), (f, i), tuple(memory))  # type: ignore[assignment, arg-type]
            pieces.append(y)
        return torch.cat(pieces, 1)

    return max(_far(value.double(), want) for value in (run(33), run(7), run(1), stepped()))


def _far(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def _parallel(q: Tensor, k: Tensor, v: Tensor, f: Tensor, i: Tensor, both: bool = False) -> Tensor:
    """All pairs of positions at once, the largest weight of each row taken out."""
    T, total = q.shape[1], f.cumsum(1)
    past = total[:, :, None] - total[:, None]
    before = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], 1)
    ahead = before[:, None] - before[:, :, None]
    at = torch.arange(T)
    log_D = torch.where((at[:, None] >= at)[..., None], past, ahead) + i[:, None]
    if not both:
        log_D = log_D.masked_fill((at[:, None] < at)[..., None], -torch.inf)
    m = log_D.amax(2, keepdim=True).clamp_min(0)
    weight = torch.einsum("bthk,bshk->btsh", q, k) * (log_D - m).exp()
    bound = torch.maximum(weight.sum(2).abs(), (-m[:, :, 0]).exp())
    return torch.einsum("btsh,bshv->bthv", weight, v) / bound[..., None]


@torch.no_grad()
def strands(seed: int) -> Mapping[str, float]:
    """Channels of both strands, and the row turned with them: what is said of one strand is said of the other."""
    torch.manual_seed(seed)
    around = ReverseComplement(16, ReverseComplement.Config(mixer=MLSTM.Config(heads=2))).double()
    alone = MLSTM(16, MLSTM.Config(heads=2)).double()
    for mixer in (around, alone):
        for value in mixer.parameters():
            value.normal_(std=0.3)
    x_BTD = torch.randn(2, 21, 16, dtype=torch.float64)
    turned = x_BTD.flip(1, 2)
    return {
        name: _far(mixer(turned)[0].flip(1, 2), mixer(x_BTD)[0])
        for name, mixer in (("read", around), ("unread", alone))
    }
