"""Gathered tiles; see ``_gather``."""

from seqloom.kernels.sparse_attention._gather import FORWARDS, refuses

__all__ = ["FORWARDS", "refuses"]
