"""What floors expect of each other without importing each other.

Shapes: B rows, q tokens of this call, V vocabulary, T time, D width, K halo.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from seqloom.core.batch import Batch
    from seqloom.core.layout import Layout
    from seqloom.core.outputs import Outputs
    from seqloom.core.state import State


@runtime_checkable
class Stepper(Protocol):
    """All that a decoder may know of a model, neural or classical."""

    def start(self, batch: "Batch", *, capacity: int | None = None) -> "State":
        """A state for the rows of a batch: encodes ``batch.context`` if there is one, consumes no token.

        ``capacity`` is the number of positions that will come at most, where it is known.
        """

    def step(self, tokens_Bq: Tensor, state: "State", *, layout: "Layout | None" = None) -> "tuple[Tensor, State]":
        """Logits (B, q, V) of what follows each of q >= 1 tokens: prefill, one token and verification are one call."""

    def observe(self, tokens_Bq: Tensor, state: "State", *, layout: "Layout | None" = None) -> "tuple[Outputs, State]":
        """As ``step``, with every named output of the model (hidden states, attention) at hand."""


class Exchange(Protocol):
    """The neighbours of this process along time; made by parallel/, used inside mixers. All of it differentiable."""

    rank: int
    size: int

    def receive(self, state: "State") -> "State":
        """The state at the end of the left neighbour's part; the given one on rank 0."""

    def send(self, state: "State") -> None:
        """Hand the state at the end of this part to the right neighbour."""

    def prefix(self, summary: Tensor, combine: Callable[[Tensor, Tensor], Tensor], empty: Tensor) -> Tensor:
        """Combination of the summaries of all parts to the left (an exclusive scan over the processes)."""

    def halo(self, x_BTD: Tensor, width: int) -> Tensor:
        """The last ``width`` positions of the left neighbour (B, width, D); zeros on rank 0."""

    def attend(self, block: Callable[..., tuple[Tensor, Tensor]], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of local queries over the keys of all parts by calls of ``block`` merged by log-sum-exp."""

    def gather(self, x_BTD: Tensor) -> Tensor:
        """The whole sequence on every process: the fall-back, at the price of its bytes."""


class Progress(Protocol):
    """Where a long operation tells how far it is. The library's default is silent; cli/ draws it."""

    def stage(self, name: str, total: int | None = None, unit: str = "step") -> None:
        """A new stage begins."""

    def advance(self, n: int = 1, values: Mapping[str, Any] | None = None) -> None:
        """``n`` units are done; ``values`` are figures worth showing."""

    def note(self, text: str) -> None:
        """A sentence for the reader."""


class Silent:
    """The progress that says nothing."""

    def stage(self, name: str, total: int | None = None, unit: str = "step") -> None:
        """Ignore the stage."""

    def advance(self, n: int = 1, values: Mapping[str, Any] | None = None) -> None:
        """Ignore the units."""

    def note(self, text: str) -> None:
        """Ignore the sentence."""
