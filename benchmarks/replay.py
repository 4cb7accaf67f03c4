"""Replay of prefixes on a mined process model, against looking each symbol up in an array.

The goal is 20,000 prefixes/s, which is 50,000 ms for the million here; each symbol ends one prefix. `table` follows the
states that were made before, `first time` makes them from the markings of the tree. The share of prefixes that do not
fit the model stands in the name: each needs an alignment where it is met first, and is a way in the table from then on.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import polars as pl

from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data import samples
from seqloom.data.ragged import Ragged
from seqloom.models.classical._replay import Replay
from seqloom.models.classical._stream import Stream
from seqloom.models.classical.inductive_miner import InductiveMiner
from seqloom.testing.benchmark import Case
from seqloom.testing.classical import check_classical

SYMBOLS = 1_000_000


def cases() -> Iterator[Case]:
    for name, train, data in (
        ("process", process(0, 0.0, 20_000), process(1, 0.0, SYMBOLS)),
        ("process with faults", process(0, 0.0, 20_000), process(1, 0.1, SYMBOLS)),
        ("flights", flights()[:800], flights()[800:]),
    ):
        vocabulary = int(max(train.flat.max(), data.flat.max())) + 1
        model = InductiveMiner(Sizes(vocabulary=vocabulary))
        model.fit(train)
        unfit = float((model.deviations(data).values > 0).mean())
        stream = Stream(data, vocabulary, closes=np.zeros(len(data), bool))
        fresh_L = stream.tokens == SPECIALS.bos
        array_V = np.arange(vocabulary)

        def table(replay=model.replay, stream=stream, fresh_L=fresh_L):
            return replay.run(stream.tokens, fresh_L)

        def first(replay=model.replay, stream=stream, fresh_L=fresh_L, tree=model.tree, vocabulary=vocabulary):
            return Replay(tree, vocabulary, replay.bounds).run(stream.tokens, fresh_L)

        def look(array_V=array_V, stream=stream):
            return array_V[stream.tokens]

        arms = {"table": table, "first time": first, "look up": look}
        yield Case(f"{len(data.flat):,} prefixes, {name}, {unfit:.1%} do not fit", arms, "look up", check, rounds=5)


@cache
def check() -> None:
    check_classical(InductiveMiner.Config())


def process(seed: int, faults: float, symbols: int) -> Ragged:
    """A made-up process with concurrency, a choice and a loop; a share of the cases lacks one symbol."""
    rng = np.random.default_rng(seed)
    kinds = []
    for _ in range(300):
        row = [6, *rng.permutation([7, 8, 9]).tolist()]
        for _ in range(rng.geometric(0.6)):
            row += [10, 11 if rng.random() < 0.5 else 12, 13]
        kinds.append([*row, 14] if rng.random() < 0.7 else row)
    rows, count = [], 0
    while count < symbols:
        row = list(kinds[rng.integers(len(kinds))])
        if rng.random() < faults:
            row.pop(rng.integers(len(row)))
        rows.append(row)
        count += len(row)
    return Ragged.of(rows)


@cache
def flights() -> Ragged:
    """Where the aircraft of the sample fly to."""
    table = pl.read_csv(samples.path("flights")).sort("timestamp", maintain_order=True)
    places = table.with_columns(id=pl.col("activity").str.slice(4).cast(pl.Categorical).to_physical() + 6)
    return Ragged.of(places.group_by("case", maintain_order=True).agg("id")["id"].to_list())
