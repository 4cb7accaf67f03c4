"""Floor 7: metrics, intervals by sequence, and comparisons that say when a difference is noise."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
