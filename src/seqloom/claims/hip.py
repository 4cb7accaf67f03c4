"""Claim: a trained attention may read a fraction of its keys, found by a tree search, and hardly anything changes.

A small model with rotary positions learns to look up (induction) and the bytes of a novel with all of attention. Then,
without training: the same weights read by search, by a window and sinks of the same budget, and by an oracle that
knows the largest scores of every query. (a) Exact where the budget covers all. (b) Recall by the depth of what is asked
for. (c) Loss on the novel. (d) Scores that are computed, over all pairs.

Thresholds are those of the specification. Wall time stands in the benchmarks. What was seen stands on the page.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._reading import Nearest, Oracle, reading
from seqloom.claims._training import answers, stack, text
from seqloom.data.batching import Batching
from seqloom.data.synthetic.induction import Induction
from seqloom.layers.mlp import MLP
from seqloom.layers.tree_attention import TreeAttention
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.attention.hip import drop_in
from seqloom.models.backbone import Backbone
from seqloom.objectives.next_token import NextToken
from seqloom.training.loop import Loop
from seqloom.training.prepare import prepare
from seqloom.training.run import Run

STAGES = ((64, 64, 700), (256, 16, 200), (512, 8, 150))
"""Columns, rows and steps of the lookup's training: what is found at 64 columns is carried to 512."""
NOVEL = 512
SHARE, WINDOW, SINKS = 8, 24, 8
"""A query sees an eighth of the length: these of it are near or first, the others are found."""


class HiP(Claim):
    """Hierarchically pruned attention on trained models."""

    source = Source(
        title="A training-free sub-quadratic cost transformer model serving framework with hierarchically pruned "
        "attention",
        authors="Lee, Park, Lee, Kim and Hwang",
        year=2024,
        arxiv="2406.09827",
    )
    statement = (
        "A tree search over the keys finds what a trained attention reads, so that its results hold at a fraction of "
        "the scores and without training, where a window and sinks of the same size lose them."
    )
    paper = "Llama 3.1 8B and others, contexts to 128k and beyond, LongBench, passkey retrieval"
    here = (
        "two layers of width 64, lookup in 512 columns and a novel as bytes in windows of 512; some four minutes a seed"
    )
    reading = 300

    def arms(self) -> dict[str, Run | Count]:
        """One training each, judged under every way of reading."""
        attention = stack(Attention.Config(heads=2), 64, mlp=MLP.Config())
        lookup = [self.lookup(attention, *stage) for stage in STAGES]
        novel = replace(text(NextToken.Config(), attention, self.reading), batch=Batching(rows=4, window=NOVEL))
        return {
            "exact": Count(exact, config={"part": "exact"}),
            "lookup": Count(
                lambda seed: judged(lookup, seed, STAGES[-1][0], "accuracy"),
                config={"runs": [run.to_json() for run in lookup]},
            ),
            "novel": Count(lambda seed: judged([novel], seed, NOVEL, "nll"), config={"run": novel.to_json()}),
        }

    @staticmethod
    def lookup(backbone: Backbone.Config, length: int, rows: int, steps: int) -> Run:
        """One stage."""
        task = Induction.Config(vocab=20, length=length, train=20_000, test=300)
        return answers(task, NextToken.Config(), backbone, steps, rows=rows)

    def findings(self, got: Results) -> Iterator[Finding]:
        """The four parts."""
        lookup, novel = got["lookup"], got["novel"]
        yield Finding("difference to full attention where the budget covers all", got["exact"].gap, "<=", 1e-5)
        yield Finding("lookup: accuracy of full attention", lookup.full, ">=", 0.9)
        yield Finding("lookup: accuracy by search over that of full attention", lookup.hip / lookup.full, ">=", 0.95)
        yield Finding("lookup: accuracy by window and sinks", lookup.window, "<=", 0.3)
        yield Finding("novel: loss by search over that of full attention", novel.hip / novel.full, "<=", 1.02)
        yield Finding("novel: loss by search over that by window and sinks", novel.hip / novel.window, "<=", 1.0)
        yield Finding("scores computed over all pairs, 65536 tokens, default options", got["exact"].scores, "<=", 0.05)


@torch.no_grad()
def exact(seed: int) -> Mapping[str, float]:
    """Everything within the budget, and the scores of a long sequence."""
    torch.manual_seed(seed)
    full = Attention(32).eval()
    x_BTD = torch.randn(2, 300, 32)
    want_BTD = full(x_BTD)[0]
    drop_in(full, TreeAttention.Config(budget=512, window=16, sinks=4))
    length = 1 << 16
    scores = TreeAttention().scores(1, length) / (length * (length + 1) / 2)
    return {"gap": float((full(x_BTD)[0] - want_BTD).abs().max()), "scores": scores}


def judged(runs: list[Run], seed: int, length: int, metric: str) -> Mapping[str, float]:
    """A metric of the test part under each way of reading; the keys that a query sees are the same number in all.

    Every run goes on from the weights of the one before.
    """
    loop = trained(runs, seed)
    test = loop.data.test
    seen = length // SHARE
    found = seen - WINDOW - SINKS
    search = TreeAttention.Config(budget=found, keys=1, queries=16, stride=4, window=WINDOW, sinks=SINKS)
    values = {"full": loop.evaluate(test)[metric]}
    with reading(loop.model, search.build()):
        values["hip"] = loop.evaluate(test)[metric]
    with reading(loop.model, Nearest(seen - SINKS, SINKS)):
        values["window"] = loop.evaluate(test)[metric]
    with reading(loop.model, Oracle(found, WINDOW, SINKS)):
        values["oracle"] = loop.evaluate(test)[metric]
    return {**values, "keys": seen, "scores": search.build().scores(1, length) / (length * (length + 1) / 2)}


def trained(runs: list[Run], seed: int) -> Loop:
    """The last run's loop."""
    own = replace(runs[0], seed=seed)
    loop = Loop(own, prepare(own))
    loop.run()
    for run in runs[1:]:
        own, weights = replace(run, seed=seed), loop.model.state_dict()
        loop = Loop(own, prepare(own))
        loop.model.load_state_dict(weights)
        loop.run()
    return loop
