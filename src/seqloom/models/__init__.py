"""Floor 5: a backbone and the few models that all systems are built from."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
