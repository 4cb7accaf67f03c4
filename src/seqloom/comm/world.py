"""The processes of a run, as the training loop sees them.

Wire bytes a rank, P ranks, n payload bytes: point to point n; all_gather of a shard n: (P-1) n; reduce_scatter of n:
(P-1)/P n; all_reduce: 2 (P-1)/P n; all_to_all: (P-1)/P n.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass
class Meter:
    """Counts what went over the wires; every collective goes through one."""

    calls: Counter[str] = field(default_factory=Counter)
    """Collective -> number of calls."""
    wire_bytes: Counter[str] = field(default_factory=Counter)
    """Collective -> bytes a rank put on or took off the wire."""

    def count(self, collective: str, payload: Tensor, ranks: int) -> None:
        """Add one call by the conventions of this module."""
        n = payload.numel() * payload.element_size()
        shares = {
            "send": n,
            "all_gather": (ranks - 1) * n,
            "reduce_scatter": (ranks - 1) * n // ranks,
            "all_reduce": 2 * (ranks - 1) * n // ranks,
            "all_to_all": (ranks - 1) * n // ranks,
            "broadcast": n if ranks > 1 else 0,
        }
        self.calls[collective] += 1
        self.wire_bytes[collective] += shares[collective]


@runtime_checkable
class World(Protocol):
    """The collectives that training needs; results are new tensors, the same on every rank where that is meant."""

    rank: int
    size: int
    meter: Meter

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, stacked along a new first axis."""

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """The source's tensor."""

    def barrier(self) -> None:
        """Wait for all ranks."""


class Alone:
    """The world of one process: every collective is the identity, and is counted all the same."""

    rank, size = 0, 1

    def __init__(self) -> None:
        """A fresh meter."""
        self.meter = Meter()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        self.meter.count("all_reduce", tensor, 1)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensor under a new first axis of one."""
        self.meter.count("all_gather", tensor, 1)
        return tensor[None]

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """The tensor itself."""
        self.meter.count("broadcast", tensor, 1)
        return tensor

    def barrier(self) -> None:
        """Nobody to wait for."""
