"""Terms of a loss, added up over batches and processes.

mean of a term = sum of its sums / sum of its counts, 0 where nothing counts
"""

from collections.abc import Mapping

import torch

from seqloom.comm.world import World
from seqloom.objectives._base import Term


class Totals:
    """Sums and counts by name, without gradients."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._terms: dict[str, list[Term]] = {}

    def add(self, terms: Mapping[str, Term]) -> None:
        """The terms of one batch. Nothing is asked of the device until ``means``."""
        for name, term in terms.items():
            kept = term._replace(sum=term.sum.detach(), count=term.count.detach())
            self._terms.setdefault(name, []).append(kept)

    def means(self, world: World) -> dict[str, float]:
        """Mean of every term over all batches and processes."""
        added = self._terms.values()
        rows = [[sum(float(t.sum) for t in terms), sum(float(t.count) for t in terms)] for terms in added]
        if world.size > 1 and rows:
            device = next(iter(added))[0].sum.device
            rows = world.all_reduce(torch.tensor(rows, dtype=torch.float64, device=device)).tolist()
        return {name: row[0] / (row[1] if row[1] > 0 else 1.0) for name, row in zip(self._terms, rows, strict=True)}

    def loss(self, means: Mapping[str, float]) -> float:
        """The terms' means in the proportions of the loss."""
        return sum(terms[-1].weight * means[name] for name, terms in self._terms.items())
