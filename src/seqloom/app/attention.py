"""Another way of reading for a fitted model's attention, without training and without touching its folder.

use_attention(fitted, "hip", keys=256)      a tree search, a window and sinks instead of everything
"""

from torch import nn

from seqloom.app.fitted import Fitted
from seqloom.core.errors import ConfigError
from seqloom.layers.tree_attention import TreeAttention
from seqloom.mixers.attention.hip import drop_in

KINDS = ("full", "hip")


def use_attention(fitted: Fitted, kind: str, keys: int = 512) -> int:
    """Let every attention layer of a fitted model read by ``kind``; return how many layers do.

    Args:
        fitted: what ``load`` or ``fit`` gave.
        kind: full, or hip (only what a tree search finds, the window and the sinks).
        keys: how many keys the search may find.

    Raises:
        ConfigError: there is no such kind, or the model has no causal attention.
    """
    if kind not in KINDS:
        raise ConfigError(f"attention is {' or '.join(KINDS)}, not {kind!r}")
    model = getattr(fitted.engine, "model", None)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{fitted} has no attention to change")
    if kind == "full":
        return drop_in(model, None)
    return drop_in(model, TreeAttention.Config(budget=keys, keys=2 if keys % 2 == 0 else 1))
