"""Floor 11: for each published system, a claim that shows its point beside its baseline."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
