"""Floor 8: other libraries' weights, in and out."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
