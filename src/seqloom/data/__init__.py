"""Floor 1: any sequence in. Readers, sequences, splits, examples, batches, small real samples, synthetic tasks.

    sequences = read("log.csv")     one row a sequence, whatever the file was

Names are imported when they are asked for: ``import seqloom.data`` loads neither Arrow nor polars nor torch.
"""

import importlib
from typing import Any

_HOMES = {
    "Ragged": "ragged",
    "Sequences": "sequences",
    "Vocabulary": "vocabulary",
    "Columns": "columns",
    "Guess": "columns",
    "read": "reading",
    "sniff": "reading",
    "Split": "splits",
    "split": "splits",
    "leakage": "splits",
    "LeakageReport": "splits",
    "Examples": "examples",
    "Batching": "batching",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module 'seqloom.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"seqloom.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
