"""What a claim is: a source, a statement, arms that differ in one argument, and findings that can fail.

A claim holds no training code. ``arms`` returns a Run for what is trained and a Count for what is counted; ``findings``
reads the results of one seed. The runner trains every arm for every seed, and a finding holds if it holds on each.
"""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from seqloom.core.errors import ConfigError
from seqloom.training.run import Run

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The paper that a claim is about."""

    title: str
    authors: str
    year: int
    arxiv: str = ""


@dataclass(frozen=True)
class Count:
    """An arm that is counted, not trained: ``measure(seed)`` returns its metrics."""

    measure: Callable[[int], Mapping[str, float]]
    config: Mapping[str, object] = field(default_factory=dict)
    """What decides the count, JSON-able: part of the arm's hash."""
    timed: bool = False
    """Its figures are times: nothing else may run beside it."""


@dataclass(frozen=True)
class Finding:
    """One sentence that a number makes true or false."""

    text: str
    value: float
    op: str
    threshold: float

    def __post_init__(self) -> None:
        """Only comparisons that can fail."""
        if self.op not in OPERATORS:
            raise ConfigError(f"{self.op!r} is no comparison; there are {', '.join(OPERATORS)}")

    @property
    def holds(self) -> bool:
        """NaN never holds."""
        return OPERATORS[self.op](self.value, self.threshold)

    @property
    def margin(self) -> float:
        """How far inside the threshold the value lies; negative where it fails. Equality has no inside."""
        if math.isnan(self.value):
            return -math.inf
        distance = self.value - self.threshold
        if self.op == "==":
            return -abs(distance)
        return distance if self.op.startswith(">") else -distance


class Arm:
    """The metrics of one arm and seed, as attributes or by name."""

    def __init__(self, name: str, metrics: Mapping[str, float]) -> None:
        """Keep the figures."""
        self.name, self.metrics = name, dict(metrics)

    def __getitem__(self, metric: str) -> float:
        """One figure; ConfigError names the ones there are."""
        if metric not in self.metrics:
            raise ConfigError(f"the arm {self.name} has no {metric!r}; it has {', '.join(sorted(self.metrics))}")
        return self.metrics[metric]

    def __getattr__(self, metric: str) -> float:
        """One figure."""
        if metric.startswith("_"):
            raise AttributeError(metric)
        return self[metric]


Results = Mapping[str, Arm]


class Claim(ABC):
    """Base of every claim; the file's name is its id."""

    source: ClassVar[Source]
    statement: ClassVar[str]
    """What the paper says, in one sentence."""
    paper: ClassVar[str]
    """The paper's scale."""
    here: ClassVar[str]
    """Our scale, and about how long it takes."""

    @abstractmethod
    def arms(self) -> dict[str, Run | Count]:
        """Name -> what is trained or counted; all from one function whose single argument is the difference."""

    @abstractmethod
    def findings(self, got: Results) -> Iterator[Finding]:
        """What one seed's results must show. The same texts in the same order for every seed."""
