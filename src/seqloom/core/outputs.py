"""What a model hands out: named, and computed only when somebody looks.

Names in use: logits, hidden (a tuple, one a layer, the embedding first), encoder_states, pooled, attention, rollouts
(the outputs on ``batch.rollouts``).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from seqloom.core.errors import ConfigError


class Outputs(Mapping[str, Any]):
    """Lazy named outputs: ``Outputs(logits=lambda: head(h), hidden=(h0, h1))``; each is computed at most once."""

    def __init__(self, entries: Mapping[str, Any | Callable[[], Any]] | None = None) -> None:
        """Tensors, tuples and modules are kept, other callables are called at the first look."""
        self._entries = dict(entries or {})

    def __getitem__(self, name: str) -> Any:
        """One output by its name; ConfigError names the ones that this model has."""
        if name not in self._entries:
            raise ConfigError(f"this model has no output called {name!r}; it has {', '.join(self._entries)}")
        value = self._entries[name]
        if callable(value) and not isinstance(value, Tensor | nn.Module):
            value = self._entries[name] = value()
        return value

    def __contains__(self, name: object) -> bool:
        """Whether the model has this output; computes nothing."""
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        """One output, or the default where the model has none of this name."""
        if name not in self:
            return default
        return self[name]

    def also(self, entries: Mapping[str, Any | Callable[[], Any]]) -> "Outputs":
        """These outputs with further ones among them."""
        self._entries.update(entries)
        return self

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Number of outputs."""
        return len(self._entries)

    @property
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities (B, T, V), or (B, classes) of a classifier."""
        return self["logits"]

    @property
    def hidden(self) -> tuple[Tensor, ...]:
        """The residual stream: after the embedding, then after each layer (B, T, D)."""
        return self["hidden"]
