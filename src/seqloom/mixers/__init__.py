"""Floor 4: sequence mixers behind one interface, one file a mixer."""

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)
