"""Floor 6: how sequences are written: greedy, sampled and more, over the Stepper protocol alone."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
