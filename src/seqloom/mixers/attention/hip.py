"""HiP: a trained attention that, outside training, reads only where a tree search points.

    training:   y = attention(x)                          everything
    otherwise:  y = attention over (found + window + sinks)

The parameters, their names and the cache are those of ``attention``: ``drop_in`` turns the attention of a model that is
already trained, without touching a weight. Rotary positions are applied before the search, as the scores need them.

Shapes: as ``attention``.
Source: Lee et al., "A training-free sub-quadratic cost transformer model serving framework with hierarchically pruned
attention", 2024, arXiv:2406.09827. Written from the paper; a refresh of the lists every few steps, its GPU kernels and
the later InfiniteHiP are left out.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.layers.tree_attention import TreeAttention
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.attention._cache import Cache
from seqloom.mixers.attention.attention import Attention


class HiP(Mixer):
    """Attention with hierarchically pruned reading."""

    State = Cache
    same_as: ClassVar[str] = "attention"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """The attention, and how much of it is read."""

        attention: Attention.Config = field(default_factory=Attention.Config)
        """What is trained."""
        sparse: TreeAttention.Config = field(default_factory=TreeAttention.Config)
        """What is read outside training."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Those of attention behind a search."""
        return replace(config.attention, sparse=config.sparse).traits()

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers: all is read, and little of it."""
        little = TreeAttention.Config(budget=4, keys=1, queries=1, stride=1, window=2, sinks=1)
        return (
            cls.Config(sparse=TreeAttention.Config(queries=1)),
            cls.Config(sparse=little),
            cls.Config(attention=Attention.Config(kv_heads=2), sparse=replace(little, keys=2, window=1, sinks=0)),
            cls.Config(sparse=replace(little, queries=4)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """The attention, by its own name."""
        super().__init__(width, config)
        self.attention = Attention(width, replace(self.config.attention, sparse=self.config.sparse))

    def initial_state(self, batch: int, *, capacity: int | None = None) -> Cache:
        """An empty cache."""
        return self.attention.initial_state(batch, capacity=capacity)

    def mix(
        self, x_BTD: Tensor, state: Cache | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, Cache | None]:
        """As attention does."""
        return self.attention.mix(x_BTD, state, layout, context)

    def flops(self, length: int) -> int:
        """Of training."""
        return self.attention.flops(length)

    def state_bytes(self, length: int) -> int:
        """Of the cache."""
        return self.attention.state_bytes(length)


def drop_in(model: nn.Module, sparse: TreeAttention.Config | None, *, dense: int = 0) -> int:
    """Let a trained model's causal attention layers read by search (None = everything again); return how many do.

    Args:
        model: any model of ours; its weights stay as they are.
        sparse: what is read.
        dense: how many of the first attention layers go on to read everything.

    Raises:
        ConfigError: it has no causal attention without a window behind these layers.
    """
    layers = [part for part in model.modules() if isinstance(part, Attention)]
    chosen = [layer for layer in layers[dense:] if layer.config.causal and not layer.config.window]
    if not chosen:
        behind = f" behind its first {dense} attention layers" if dense else ""
        raise ConfigError(f"the model has no causal attention over everything{behind}")
    for layer in chosen:
        layer.config = replace(layer.config, sparse=sparse)
        layer.can, layer.sparse = layer.config.traits(), None if sparse is None else sparse.build()
        layer.sparse = layer.sparse if layer.sparse is None else layer.sparse.train(layer.training)
    for part in model.modules():
        if isinstance(part, HiP):
            part.can = part.attention.can
    return len(chosen)
