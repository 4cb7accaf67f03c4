"""Claim: two shifted recurrences and a free diagonal see both sides better than one, or two that are added.

(a) Structure, exact: the matrix of a head, recovered by unit vectors in float64, has a zero diagonal before its own
term, blocks of at most the state's rank on either side, and the entries of the formula; without the shift it is
forward plus backward, diagonal counted twice. (b) Hidden bytes of a novel: Hydra, the same with both directions added
(``diagonal="sum"``), Mamba-2 forwards, and attention with an MLP, at about equal parameters and equal steps. (c) Four
structures of matrices made of the tokens, or learnt by place, on the same task.

Thresholds of (b) and (c) are those of the specification. What was seen stands on the page.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._training import stack, text
from seqloom.layers.mlp import MLP
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.ssm import hydra as quasiseparable
from seqloom.mixers.ssm.mamba2 import Mamba2
from seqloom.mixers.ssm.matrix_mixer import MatrixMixer
from seqloom.objectives.masked_token import MaskedToken
from seqloom.training.run import Run

CLASSES = ("toeplitz", "vandermonde", "cauchy", "low_rank")
STATE = 3


class Hydra(Claim):
    """Quasiseparable matrices: structure, both sides, and matrices made of the tokens."""

    source = Source(
        title="Hydra: bidirectional state space models through generalized matrix mixers",
        authors="Hwang, Lahoti, Dao and Gu",
        year=2024,
        arxiv="2407.09941",
    )
    statement = (
        "A quasiseparable mixer with a free diagonal learns masked modelling better than one direction and at least as "
        "well as two that are added, and matrices made of the tokens do so better than matrices learnt by place."
    )
    paper = "BERT-size encoders on C4 and GLUE, ViT-size on ImageNet"
    here = "a novel as bytes in windows of 128, two layers, 300 and 150 steps of 16; some five minutes a seed"
    steps = 300
    short = 150

    def arms(self) -> dict[str, Run | Count]:
        """One that is counted, four encoders, eight matrices."""
        return {
            "structure": Count(structure, config={"part": "structure"}),
            "hydra": self.arm(quasiseparable.Hydra.Config(state=16), 48),
            "added": self.arm(quasiseparable.Hydra.Config(state=16, diagonal="sum"), 48),
            "forward": self.arm(Mamba2.Config(state=16), 50),
            "attention": self.arm(Attention.Config(causal=False), 40, mlp=MLP.Config()),
            **{f"{kind}_tokens": self.matrix(MatrixMixer.Config(kind=kind, state=4)) for kind in CLASSES},  # type: ignore[arg-type]
            **{
                f"{kind}_place": self.matrix(MatrixMixer.Config(kind=kind, state=4, dependent=False, length=160))  # type: ignore[arg-type]
                for kind in CLASSES
            },
        }

    def arm(self, mixer: Mixer.Config, width: int, mlp: MLP.Config | None = None) -> Run:
        """Part (b): the mixer is the difference; the width gives about the same number of parameters."""
        return text(MaskedToken.Config(), stack(mixer, width, mlp=mlp), self.steps)

    def matrix(self, mixer: Mixer.Config) -> Run:
        """Part (c)."""
        return text(MaskedToken.Config(), stack(mixer, 32), self.short)

    def findings(self, got: Results) -> Iterator[Finding]:
        """The three parts."""
        exact = got["structure"]
        yield Finding("largest entry on the diagonal of both shifted recurrences", exact.diagonal, "<=", 1e-12)
        yield Finding("largest rank of a block off the diagonal, less the state", exact.excess, "<=", 0.0)
        yield Finding("largest difference to the formula of the entries", exact.formula, "<=", 1e-10)
        yield Finding("without the shift, difference to forward plus backward", exact.added, "<=", 1e-12)
        loss = {name: got[name].loss for name in ("hydra", "added", "forward", "attention")}
        yield Finding("loss of Hydra over that of Mamba-2 forwards", loss["hydra"] / loss["forward"], "<=", 0.90)
        yield Finding("loss of Hydra over that of two directions added", loss["hydra"] / loss["added"], "<=", 1.01)
        sizes = [got[name].used_parameters for name in loss]
        yield Finding("largest of the four over the smallest, in parameters", max(sizes) / min(sizes), "<=", 1.15)
        better = sum(got[f"{kind}_tokens"].loss < got[f"{kind}_place"].loss for kind in CLASSES)
        yield Finding("structures that are better when made of the tokens, of four", float(better), ">=", 3.0)


@torch.no_grad()
def structure(seed: int) -> Mapping[str, float]:
    """Unit vectors in place of the values show the matrix of each head."""
    torch.manual_seed(seed)
    T, H, N = 20, 2, STATE
    q_BTFGN, k_BTFGN = (torch.randn(1, T, 2, 1, N, dtype=torch.float64) for _ in range(2))
    log_decay_BTFH = -torch.rand(1, T, 2, H, dtype=torch.float64)
    shifted = _matrix(q_BTFGN, k_BTFGN, log_decay_BTFH, shift=True)
    plain = _matrix(q_BTFGN, k_BTFGN, log_decay_BTFH, shift=False)
    ranks = [
        int(torch.linalg.matrix_rank(block, rtol=1e-9))
        for head in shifted
        for cut in range(1, T)
        for block in (head[cut:, :cut], head[:cut, cut:])
    ]
    want = torch.stack([_entries(q_BTFGN, k_BTFGN, log_decay_BTFH[..., h]) for h in range(H)])
    one, other = (_direction(q_BTFGN, k_BTFGN, log_decay_BTFH, at) for at in (0, 1))
    return {
        "diagonal": float(shifted.diagonal(dim1=1, dim2=2).abs().max()),
        "excess": float(max(ranks) - N),
        "formula": float((shifted - want).abs().max()),
        "added": float((plain - one - other).abs().max()),
    }


def _matrix(q: Tensor, k: Tensor, log_decay: Tensor, shift: bool) -> Tensor:
    """(H, T, T): values are the identity, one channel a column."""
    T, H = log_decay.shape[1], log_decay.shape[3]
    v_BTFHP = torch.eye(T, dtype=torch.float64)[None, :, None, None].expand(1, T, 2, H, T).contiguous()
    y_BTHP = quasiseparable.both_ways(q, k, v_BTFHP, log_decay, shift=shift)
    return y_BTHP[0].transpose(0, 1)


def _direction(q: Tensor, k: Tensor, log_decay: Tensor, at: int) -> Tensor:
    """One recurrence alone, its own position included: the other one's keys are zero."""
    mine = torch.zeros(1, 1, 2, 1, 1, dtype=torch.float64)
    mine[:, :, at] = 1
    return _matrix(q, k * mine, log_decay, shift=False)


def _entries(q: Tensor, k: Tensor, log_decay_BTF: Tensor) -> Tensor:
    """The formula, entry by entry: what lies between j and i fades, and each side is one position late."""
    T, M = q.shape[1], torch.zeros(q.shape[1], q.shape[1], dtype=torch.float64)
    for i in range(T):
        for j in range(i):
            fade = log_decay_BTF[0, j + 1 : i, 0].sum().exp()
            M[i, j] = q[0, i - 1, 0, 0] @ k[0, j, 0, 0] * fade
        for j in range(i + 1, T):
            fade = log_decay_BTF[0, i + 1 : j, 1].sum().exp()
            M[i, j] = q[0, i + 1, 1, 0] @ k[0, j, 1, 0] * fade
    return M
