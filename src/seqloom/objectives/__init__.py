"""Floor 6: what is learnt: corruption, batches and losses."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
