"""Losses that parts of a model ask for by themselves, beside the objective's: the balance of a router.

    with collecting() as added:
        loss = objective.loss(model.run(batch), batch)
    added                                  {"balance": Tensor}: already weighted, summed over the parts

A part calls ``add``; where nobody collects, nothing is kept and nothing is computed if it asks ``wanted()`` first.

Shapes: every value is a scalar.
Source: Fedus, Zoph and Shazeer, "Switch transformers", 2021, arXiv:2101.03961, section 2.2 (a balance loss).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_OPEN: list[dict[str, Tensor]] = []  # a plain global: dynamo traces through it, a ContextVar breaks the graph


@contextmanager
def collecting() -> Iterator[dict[str, Tensor]]:
    """Yield a dict that fills while the model runs."""
    added: dict[str, Tensor] = {}
    _OPEN.append(added)
    try:
        yield added
    finally:
        _OPEN.pop()  # by place: two dicts that hold the same are equal


def wanted() -> bool:
    """Whether somebody collects."""
    return bool(_OPEN)


def add(name: str, value: Tensor) -> None:
    """Add a weighted loss to what the innermost collector holds under this name."""
    if _OPEN:
        _OPEN[-1][name] = _OPEN[-1][name] + value if name in _OPEN[-1] else value
