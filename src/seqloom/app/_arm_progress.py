"""Progress of one arm of a comparison."""

from collections.abc import Mapping
from typing import Any

from seqloom.core.protocols import Progress


class ArmProgress:
    """Progress whose stages tell which arm they belong to."""

    def __init__(self, inner: Progress, prefix: str) -> None:
        self.inner, self.prefix = inner, prefix

    def stage(self, name: str, total: int | None = None, unit: str = "step") -> None:
        self.inner.stage(f"{self.prefix}: {name}", total, unit)

    def advance(self, n: int = 1, values: Mapping[str, Any] | None = None) -> None:
        self.inner.advance(n, values)

    def note(self, text: str) -> None:
        self.inner.note(text)
