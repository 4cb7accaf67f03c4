"""What may watch a run: called at fixed points of the loop, never in charge of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqloom.core.component import Component

if TYPE_CHECKING:
    from seqloom.training.loop import Loop


class Callback(Component):
    """Base of every callback; each hook does nothing unless overridden."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a callback."""

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config: Any = config if config is not None else type(self).Config()

    def begin(self, loop: "Loop") -> None:
        """Before the first step, also after a resume."""

    def after_step(self, loop: "Loop", values: dict[str, float]) -> None:
        """After each optimiser step, with its figures."""

    def after_look(self, loop: "Loop", values: dict[str, float]) -> None:
        """After each look at the validation part."""

    def end(self, loop: "Loop") -> None:
        """After the last step."""
