"""Claim: a convolution that a small network writes, between gates, costs T log T and reaches a million columns.

The operator alone; models of genomes are later ones. (a) Exact: the operator is the product with explicit Toeplitz
matrices, and an output reads a later input by the rounding of the transform alone. (b) Operations against attention's
to a million columns; the exponent of a layer's time from 1024 to 65536, attention's to 8192, and their ratio at 16384.
(c) A million columns through two layers: the largest memory that torch held, beside attention's scores.
(d) Sequence-length warm-up: half of the steps at a quarter of the length with four times the rows, the other half at
the full length, against all steps at the full length; the same number of bytes read.  (e) The next byte of a novel,
beside attention of about equal size, equal steps.

Thresholds are those of the specification. What was seen stands on the page.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._s4_counts import peak, timed
from seqloom.claims._training import stack, text
from seqloom.data.batching import Batching
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.layers.mlp import MLP
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.conv.hyena import Hyena
from seqloom.objectives.next_token import NextToken
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop
from seqloom.training.prepare import prepare
from seqloom.training.run import Run

MILLION = 1 << 20
OURS, THEIRS = (1024, 4096, 16384, 65536), (1024, 2048, 4096, 8192)
LONG = 512


class HyenaDNAOperator(Claim):
    """The Hyena operator: Toeplitz, cost, a million columns, warm-up, bytes."""

    source = Source(
        title="HyenaDNA: long-range genomic sequence modeling at single nucleotide resolution",
        authors="Nguyen, Poli, Faizi, Thomas, Birch-Sykes, Wornow, Patel, Rabideau, Massaroli, Bengio, Ermon, Baccus "
        "and Ré",
        year=2023,
        arxiv="2306.15794",
    )
    statement = (
        "Gates and implicit long convolutions cost T log T, carry a million columns, learn long contexts faster when "
        "the length is raised step by step, and predict bytes as well as attention of their size."
    )
    paper = "contexts of 1M nucleotides, 160 times as fast as attention there; Hyena at 335M parameters"
    here = "layers of width 32, a novel as bytes in windows of 512, 600 steps of 4; some two minutes a seed"
    steps = 600

    def arms(self) -> dict[str, Run | Count]:
        """Exact, counted, timed, and four that are trained."""
        hyena = Hyena.Config(filter=ImplicitFilter.Config(length=LONG, width=16))
        return {
            "exact": Count(exact, config={"part": "exact"}),
            "cost": Count(cost, config={"part": "cost"}, timed=True),
            "million": Count(million, config={"part": "million"}),
            "warm": self.arm(hyena, 48, (LONG // 4, LONG)),
            "cold": self.arm(hyena, 48, (LONG,)),
            "attention": self.arm(Attention.Config(), 48, (LONG,)),
        }

    def arm(self, mixer: Mixer.Config, width: int, windows: tuple[int, ...]) -> Count:
        """As many bytes in every stage; the weights of one stage begin the next, the optimiser begins anew."""
        base = text(NextToken.Config(), stack(mixer, width, mlp=MLP.Config()), self.steps)

        def measure(seed: int) -> Mapping[str, float]:
            seconds, weights, loss = 0.0, None, math.nan
            for window in windows:
                steps = Budget(steps=self.steps // len(windows))
                run = replace(base, seed=seed, batch=Batching(rows=4 * LONG // window, window=window), budget=steps)
                loop = Loop(run, data := prepare(run))
                if weights is not None:
                    loop.model.load_state_dict(weights)
                begin = time.process_time()
                loop.run()
                seconds += time.process_time() - begin
                weights, loss = loop.model.state_dict(), loop.evaluate(data.test, limit=400)["loss"]
            size = sum(value.numel() for value in (weights or {}).values())
            return {"loss": loss, "seconds": seconds, "parameters": size}

        return Count(measure, config={"run": base.to_json(), "windows": list(windows)})

    def findings(self, got: Results) -> Iterator[Finding]:
        """The five parts."""
        yield Finding("operator against explicit Toeplitz matrices", got["exact"].toeplitz, "<=", 1e-10)
        yield Finding("gradient to a later input over the largest, float32", got["exact"].leak, "<=", 1e-5)
        yield Finding("operations of attention over ours at a million columns", got["cost"].counted, ">=", 100.0)
        yield Finding("exponent of our time in the length", got["cost"].slope, "<=", 1.25)
        yield Finding("exponent of attention's time in the length", got["cost"].attention_slope, ">=", 1.8)
        yield Finding("time of attention's layer over ours at 16384", got["cost"].ratio, ">=", 10.0)
        yield Finding("bytes of attention's scores over ours, a million columns", got["million"].ratio, ">=", 100.0)
        warm, cold, attention = (got[name] for name in ("warm", "cold", "attention"))
        yield Finding("loss with warm-up over the loss without", warm.loss / cold.loss, "<=", 1.0)
        yield Finding("processor time with warm-up over the time without", warm.seconds / cold.seconds, "<=", 0.8)
        yield Finding("loss of Hyena over that of attention", cold.loss / attention.loss, "<=", 1.02)
        sizes = [cold.parameters, attention.parameters]
        yield Finding("larger of the two over the smaller, in parameters", max(sizes) / min(sizes), "<=", 1.1)


def exact(seed: int) -> Mapping[str, float]:
    """Orders 2 and 3 against matrices; then a gradient in float32."""
    torch.manual_seed(seed)
    worst = 0.0
    for order in (2, 3):
        mixer = Hyena(4, Hyena.Config(order=order, conv=1, filter=ImplicitFilter.Config(length=40, width=8))).double()
        x_1TD = torch.randn(1, 37, 4, dtype=torch.float64)
        with torch.no_grad():
            got, want = mixer(x_1TD)[0], _by_matrices(mixer, x_1TD)
        worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    single = Hyena(4, Hyena.Config(filter=ImplicitFilter.Config(length=200, width=8)))
    x_1TD = torch.randn(1, 200, 4, requires_grad=True)
    (slope_1TD,) = torch.autograd.grad(single(x_1TD)[0][:, 99].sum(), x_1TD)
    size_T = slope_1TD[0].abs().amax(1)
    return {"toeplitz": worst, "leak": float(size_T[100:].max() / size_T.max())}


@torch.no_grad()
def cost(seed: int) -> Mapping[str, float]:
    """One layer of width 32, one row."""
    torch.manual_seed(seed)
    ours = Hyena(32, Hyena.Config(filter=ImplicitFilter.Config(length=OURS[-1], width=16)))
    theirs = Attention(32, Attention.Config(heads=2))
    arms: dict[str, Callable[[], Tensor]] = {}
    for name, mixer, lengths in (("ours", ours, OURS), ("theirs", theirs, (*THEIRS, 16384))):
        for length in lengths:
            x_1TD = torch.randn(1, length, 32)
            arms[f"{name}_{length}"] = lambda mixer=mixer, x=x_1TD: mixer(x)[0]
    seconds = {name: statistics.median(found) for name, found in timed(arms, 5).items()}
    return {
        "counted": theirs.flops(MILLION) / ours.flops(MILLION),
        "slope": _slope(OURS, [seconds[f"ours_{length}"] for length in OURS]),
        "attention_slope": _slope(THEIRS, [seconds[f"theirs_{length}"] for length in THEIRS]),
        "ratio": seconds["theirs_16384"] / seconds["ours_16384"],
    }


@torch.no_grad()
def million(seed: int) -> Mapping[str, float]:
    """Two layers of width 8, the whole row at once; the convolution takes channels in tiles."""
    torch.manual_seed(seed)
    options = Hyena.Config(filter=ImplicitFilter.Config(length=MILLION, width=8))
    layers = [Hyena(8, options) for _ in range(2)]

    def run() -> Tensor:
        x_1TD = torch.zeros(1, MILLION, 8)
        for layer in layers:
            x_1TD = x_1TD + layer(x_1TD)[0]
        return x_1TD

    held = peak(run)
    return {"bytes": float(held), "ratio": 4.0 * MILLION**2 / held}


@torch.no_grad()
def _by_matrices(mixer: Hyena, x_1TD: Tensor) -> Tensor:
    """The gates and one Toeplitz matrix a convolution and channel, from the kernels as they are."""
    T, kernel_ODL = x_1TD.shape[1], mixer.kernels(x_1TD.shape[1])
    u_1TC = mixer.into(x_1TD) * mixer.conv_weight[:, 0] + mixer.conv_bias
    *gates, v_1TD = u_1TC.split(mixer.width, -1)
    lag_TT = torch.arange(T)[:, None] - torch.arange(T)
    v_1TD = v_1TD * gates[-1]
    for k_DL, skip_D, gate_1TD in zip(kernel_ODL, mixer.skip, reversed(gates[:-1]), strict=True):
        toeplitz_DTT = torch.where(lag_TT >= 0, k_DL[:, lag_TT.clamp_min(0)], 0)
        v_1TD = gate_1TD * (torch.einsum("dts,bsd->btd", toeplitz_DTT, v_1TD) + skip_D * v_1TD)
    return mixer.out(v_1TD)


def _slope(lengths: tuple[int, ...], seconds: list[float]) -> float:
    """Exponent by least squares."""
    xs, ys = [math.log(length) for length in lengths], [math.log(value) for value in seconds]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
