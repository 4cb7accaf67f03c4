"""The same searches, many at once; see ``_beam``."""

from seqloom.kernels.tree_topk._beam import FORWARDS, refuses

__all__ = ["FORWARDS", "refuses"]
