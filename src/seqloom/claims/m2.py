"""Claim: both directions of a model by Monarch matrices: the same quality from fewer parameters, less than quadratic.

(a) Exact, in float64: the product is that of the dense matrix, the Fourier transform is a Monarch matrix, the multiply-
adds at n = 4096 are counted. (b) Triangular matrices and their inverses do not look ahead: zeros there are exact; the
learned causal mixer, whose convolution is a Fourier transform, looks ahead by its rounding alone. (c) Hidden bytes of a
novel: an encoder of Monarch Mixers with structured MLPs beside attention with dense ones, at most 73 % of its
parameters, equal steps. (d) Exponent of a layer's time over the length, and the ratio to attention at 4096.

Thresholds are those of the specification. What was seen stands on the page.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._s4_counts import timed
from seqloom.claims._training import stack, text
from seqloom.kernels.monarch import monarch
from seqloom.kernels.monarch.factors import dft, invert
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.layers.mlp import MLP
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.conv.monarch_mixer import MonarchMixer
from seqloom.objectives.masked_token import MaskedToken
from seqloom.training.run import Run

LENGTHS = (512, 1024, 2048, 4096)


class M2(Claim):
    """Monarch matrices along the sequence and along the channels."""

    source = Source(
        title="Monarch Mixer: a simple sub-quadratic GEMM-based architecture",
        authors="Fu, Arora, Grogan, Johnson, Eyuboglu, Thomas, Spector, Poli, Rudra and Ré",
        year=2023,
        arxiv="2310.12109",
    )
    statement = (
        "Monarch matrices along the sequence and the channels reach a Transformer's quality with fewer parameters, at "
        "a cost below quadratic in both."
    )
    paper = "BERT with 27 % fewer parameters, GPT at 360M, ViT with half the parameters"
    here = "a novel as bytes in windows of 128, two layers, 300 steps of 16; some two minutes a seed"
    steps = 300

    def arms(self) -> dict[str, Run | Count]:
        """Counted, timed, and two encoders."""
        mixer = MonarchMixer.Config(causal=False, filter=ImplicitFilter.Config(length=128, width=16))
        structured = MLP.Config(kind="geglu", structure="blocks", blocks=4)
        return {
            "exact": Count(exact, config={"part": "exact"}),
            "future": Count(future, config={"part": "future"}),
            "time": Count(time_of, config={"part": "time"}, timed=True),
            "m2": text(MaskedToken.Config(), stack(mixer, 60, mlp=structured), self.steps),
            "attention": text(
                MaskedToken.Config(), stack(Attention.Config(causal=False), 64, mlp=MLP.Config()), self.steps
            ),
        }

    def findings(self, got: Results) -> Iterator[Finding]:
        """The four parts."""
        yield Finding("product against the dense matrix", got["exact"].dense, "<=", 1e-10)
        yield Finding("Fourier transform against numpy's", got["exact"].fourier, "<=", 1e-10)
        yield Finding("multiply-adds of the dense product over ours, n = 4096", got["exact"].macs, ">=", 30.0)
        yield Finding("triangular matrices: largest entry above the diagonal", got["future"].above, "==", 0.0)
        yield Finding("learned mixer: gradient to a later input over the largest", got["future"].leak, "<=", 1e-12)
        yield Finding("learned mixer: smallest gradient to an earlier one", got["future"].reach, ">", 0.0)
        share = got["m2"].used_parameters / got["attention"].used_parameters
        yield Finding("parameters over attention's", share, "<=", 0.73)
        yield Finding("loss over attention's", got["m2"].loss / got["attention"].loss, "<=", 1.02)
        yield Finding("exponent of the layer's time in the length", got["time"].slope, "<=", 1.6)
        yield Finding("exponent of attention's time in the length", got["time"].attention_slope, ">=", 1.8)
        yield Finding("time of attention's layer over ours at 4096", got["time"].ratio, ">=", 2.0)


@torch.no_grad()
def exact(seed: int) -> Mapping[str, float]:
    """Dense matrices are written out of unit vectors' images by their definition."""
    import numpy as np

    torch.manual_seed(seed)
    left, right = (torch.randn(6, 6, 6, dtype=torch.float64) for _ in range(2))
    want = torch.zeros(36, 36, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            for k in range(6):
                for row in range(6):
                    want[row * 6 + k, i * 6 + j] = left[k, row, i] * right[i, k, j]
    x_1NC = torch.randn(1, 36, 5, dtype=torch.float64)
    signal = torch.randn(1, 64, 3, dtype=torch.float64).to(torch.complex128)
    got = monarch(signal, *dft(8, 8, torch.complex128), True)[0].numpy()
    big = [torch.empty(64, 64, 64, device="meta") for _ in range(2)]
    macs = monarch.floor(torch.empty(1, 4096, 1, device="meta"), *big).macs
    return {
        "dense": float((monarch(x_1NC, left, right)[0] - want @ x_1NC[0]).abs().max()),
        "fourier": float(np.abs(got - np.fft.fft(signal[0].numpy(), axis=0)).max()),
        "macs": 4096**2 / macs,
    }


def future(seed: int) -> Mapping[str, float]:
    """Gradients of every output with respect to every input, after the transforms have moved; and the transforms."""
    torch.manual_seed(seed)
    left, right = (torch.randn(5, 5, 5, dtype=torch.float64).tril() for _ in range(2))
    one_1NN = torch.eye(25, dtype=torch.float64)[None]
    straight = monarch(one_1NN, left, right)[0]
    back = monarch(monarch(one_1NN, left, right), *invert(left, right), True, True)[0]
    above = max(float(straight.triu(1).abs().max()), float(back.triu(1).abs().max()))
    options = MonarchMixer.Config(
        form="monarch", conv=1, residual=False, filter=ImplicitFilter.Config(length=16, width=4)
    )
    mixer = MonarchMixer(3, options).double()
    with torch.no_grad():
        for value in mixer.parameters():
            value.add_(0.1 * torch.randn_like(value))
    x_1TD = torch.randn(1, 16, 3, dtype=torch.float64, requires_grad=True)
    y_TD = mixer(x_1TD)[0][0]
    rows = [torch.autograd.grad(y_TD[t].sum(), x_1TD, retain_graph=True)[0][0].abs().sum(1) for t in range(16)]
    size_TT = torch.stack(rows)
    past = size_TT.tril().sum(0) + size_TT.tril().sum(1)
    return {"above": above, "leak": float(size_TT.triu(1).max() / size_TT.max()), "reach": float(past.min())}


@torch.no_grad()
def time_of(seed: int) -> Mapping[str, float]:
    """One layer of width 64, one row; medians over rounds that time every length of both."""
    torch.manual_seed(seed)
    ours = MonarchMixer(64, MonarchMixer.Config(filter=ImplicitFilter.Config(length=LENGTHS[-1])))
    theirs = Attention(64)
    arms: dict[str, Callable[[], Tensor]] = {}
    for length in LENGTHS:
        x_1TD = torch.randn(1, length, 64)
        arms[f"ours_{length}"] = lambda x=x_1TD: ours(x)[0]
        arms[f"theirs_{length}"] = lambda x=x_1TD: theirs(x)[0]
    times = {name: statistics.median(seconds) for name, seconds in timed(arms, 7).items()}
    last = LENGTHS[-1]
    return {
        "slope": _slope([times[f"ours_{length}"] for length in LENGTHS]),
        "attention_slope": _slope([times[f"theirs_{length}"] for length in LENGTHS]),
        "ratio": times[f"theirs_{last}"] / times[f"ours_{last}"],
    }


def _slope(seconds: list[float]) -> float:
    """Exponent by least squares."""
    xs, ys = [math.log(length) for length in LENGTHS], [math.log(value) for value in seconds]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
