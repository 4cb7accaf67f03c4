"""Claim: a sample of keys tells which queries deserve attention, at T log T scores.

The attention and the distilling layer alone; the forecaster is a later one. (a) Exact: with every query answered it is
full attention, causal or not. (b) Scores counted at 4096, and the exponent of the memory that a layer needs, measured.
(c) On layers that were trained with full attention: the error of the output when the sample chooses the queries,
over that when chance chooses as many. (d) Digits as 256 columns, trained with either. (e) Bytes kept for the backward
pass by a stack of three layers with distilling between them, over those of its first layer.

Thresholds are those of the specification; (d) asks of accuracy what it asks of a forecast's error. What was seen stands
on the page.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._s4_counts import peak
from seqloom.claims._training import digits, stack
from seqloom.core.counting import saved_bytes
from seqloom.kernels.block_attention import block_attention
from seqloom.layers.distil import Distil
from seqloom.layers.mlp import MLP
from seqloom.mixers.attention import prob_sparse as sparse
from seqloom.models.encoder import Encoder
from seqloom.training.loop import Loop
from seqloom.training.prepare import prepare
from seqloom.training.run import Run

COLUMNS = 256
ALL = 1e4
"""A factor that answers every query."""


class InformerProbSparse(Claim):
    """ProbSparse attention: exact, counted, well chosen, as good, half as long."""

    source = Source(
        title="Informer: beyond efficient transformer for long sequence time-series forecasting",
        authors="Zhou, Zhang, Peng, Zhang, Li, Xiong and Zhang",
        year=2021,
        arxiv="2012.07436",
    )
    statement = (
        "Few queries have a score distribution worth attending to, and a sample of keys finds them, so that T log T "
        "scores do the work of T squared; halving the length between layers keeps a stack below twice its first layer."
    )
    paper = "electricity and weather to 720 steps ahead, ETTh1 MSE 0.098 to 0.269"
    here = "scikit-learn's digits as 256 columns, two layers of width 32, 400 steps of 16; some three minutes a seed"
    steps = 400

    def arms(self) -> dict[str, Run | Count]:
        """Counts, and two trainings."""
        return {
            "exact": Count(exact, config={"part": "exact"}),
            "cost": Count(cost, config={"part": "cost"}),
            "distilled": Count(distilled, config={"part": "distilled"}),
            "full": self.arm(ALL),
            "prob_sparse": self.arm(5.0),
        }

    def arm(self, factor: float) -> Count:
        """How many queries are answered is the difference."""
        mixer = sparse.ProbSparse.Config(factor=factor)
        backbone = stack(mixer, 32, mlp=MLP.Config())
        model = Encoder.Config(backbone=backbone, positions=COLUMNS + 8)  # attention alone does not know the order
        run = replace(digits(backbone, self.steps, repeat=2), model=model)

        def measure(seed: int) -> Mapping[str, float]:
            loop = Loop(own := replace(run, seed=seed), data := prepare(own))
            loop.run()
            found = {"accuracy": loop.evaluate(data.test)["accuracy"]}
            return found if factor < ALL else {**found, **chosen(loop, own)}

        return Count(measure, config={"run": run.to_json()})

    def findings(self, got: Results) -> Iterator[Finding]:
        """The five parts."""
        cost, full = got["cost"], got["full"]
        yield Finding("difference to full attention where every query is answered", got["exact"].full, "<=", 1e-6)
        yield Finding("the same, causal", got["exact"].causal, "<=", 1e-6)
        yield Finding("scores at 4096 over all pairs, counted", cost.share, "<=", 0.03)
        yield Finding("exponent of the scores from 512 to 8192", cost.scores, "<=", 1.25)
        yield Finding("exponent of the memory of a layer from 1024 to 4096", cost.memory, "<=", 1.2)
        yield Finding(
            "error of the chosen queries over that of random ones, trained layers", full.over_random, "<=", 0.5
        )
        yield Finding("accuracy over that of full attention", got["prob_sparse"].accuracy / full.accuracy, ">=", 0.95)
        yield Finding("scores of full attention over ours at 256", cost.fewer, ">=", 4.0)
        yield Finding("bytes kept by three distilled layers over those of the first", got["distilled"].ratio, "<=", 2.0)


@torch.no_grad()
def exact(seed: int) -> Mapping[str, float]:
    """Against attention over everything."""
    torch.manual_seed(seed)
    found = {}
    for name, causal in (("full", "no"), ("causal", "strict")):
        mixer = sparse.ProbSparse(32, sparse.ProbSparse.Config(factor=ALL, causal=causal)).eval()  # type: ignore[arg-type]
        x_BTD = torch.randn(2, 100, 32)
        q, k, v = mixer.qkv(x_BTD).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        want = block_attention(q, k, v, None, 0 if name == "causal" else None)[0]
        found[name] = float((mixer.look(q, k, v) - want).abs().max())
    return found


@torch.no_grad()
def cost(seed: int) -> Mapping[str, float]:
    """Scores by the layer's own numbers; memory as torch holds it."""
    torch.manual_seed(seed)
    mixer = sparse.ProbSparse(32).eval()

    def scores(length: int) -> int:
        return length * sum(mixer.amounts(length))

    def held(length: int) -> int:
        x_BTD = torch.randn(1, length, 32)
        return peak(lambda: mixer(x_BTD))

    return {
        "share": scores(4096) / 4096**2,
        "scores": math.log2(scores(8192) / scores(512)) / 4,
        "memory": math.log2(held(4096) / held(1024)) / 2,
        "fewer": COLUMNS**2 / scores(COLUMNS),
    }


def distilled(seed: int) -> Mapping[str, float]:
    """Three attention layers, each behind a halving of the length, against the first alone."""
    torch.manual_seed(seed)
    layers = nn.ModuleList([sparse.ProbSparse(32) for _ in range(3)])
    halves = nn.ModuleList([Distil(32) for _ in range(2)])
    x_BTD = torch.randn(1, 2048, 32, requires_grad=True)

    def whole() -> Tensor:
        y_BTD = layers[0](x_BTD)[0]
        for half, layer in zip(halves, layers[1:], strict=True):
            y_BTD = layer(half(y_BTD))[0]
        return y_BTD

    first = saved_bytes(lambda: layers[0](x_BTD)[0])
    alone = saved_bytes(lambda: halves[0](layers[0](x_BTD)[0]))
    return {"ratio": saved_bytes(whole) / alone, "over_attention": saved_bytes(whole) / first}


@torch.no_grad()
def chosen(loop: Loop, run: Run) -> Mapping[str, float]:
    """Errors of a trained layer's output with as many queries answered as factor 5 answers, chosen and at random."""
    errors: dict[str, list[float]] = {"chosen": [], "random": []}
    rng = torch.Generator().manual_seed(run.seed)

    def hook(module: Any, inputs: Any, made: Any) -> None:
        few = sparse.ProbSparse(module.width, replace(module.config, factor=5.0)).eval()
        q, k, v = module.qkv(inputs[0]).unflatten(2, (3, module.config.heads, -1)).permute(2, 0, 3, 1, 4)
        want, count = block_attention(q, k, v)[0], few.amounts(q.shape[2])[1]
        lazy = v.mean(2, keepdim=True).expand_as(v)
        order = torch.rand(q.shape[:3], generator=rng).argsort(-1)[..., :count, None].expand(-1, -1, -1, q.shape[3])
        random = lazy.scatter(2, order, want.gather(2, order))
        errors["chosen"].append(float((few.look(q, k, v) - want).norm()))
        errors["random"].append(float((random - want).norm()))

    handles = [part.register_forward_hook(hook) for part in loop.model.modules() if isinstance(part, sparse.ProbSparse)]
    loop.evaluate(prepare(run).test)
    for handle in handles:
        handle.remove()
    return {"over_random": sum(errors["chosen"]) / sum(errors["random"])}
