"""One file a format: each says how sure it is that a file is its own, and reads it into Sequences."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
