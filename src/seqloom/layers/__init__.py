"""Floor 3: what several mixers and models share: norms, channel mixers, positions."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
