"""Classical sequence models: counts and automata behind the same interface as the networks, one file a model."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
