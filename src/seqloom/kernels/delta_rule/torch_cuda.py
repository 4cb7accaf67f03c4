"""The same chunks as batched matrix products; see ``_chunks``."""

from seqloom.kernels.delta_rule._chunks import FORWARDS, refuses

__all__ = ["FORWARDS", "refuses"]
