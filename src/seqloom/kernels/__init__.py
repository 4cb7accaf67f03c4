"""Floor 1: hot loops. One folder an operation: its meaning in ``__init__``, faster backends beside it."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
