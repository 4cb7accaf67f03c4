"""Doubled tables, and gradients from the inputs alone; see ``_tables``."""

from seqloom.kernels.vandermonde import _tables

FORWARDS = {"vandermonde": _tables.forward, "vandermonde_transposed": _tables.transposed}
refuses = _tables.refuses
