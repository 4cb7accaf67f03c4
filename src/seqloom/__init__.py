"""seqloom: sequence modelling, end to end.

    import seqloom
    model = seqloom.fit("log.csv", "gru", budget="60s", out="m")      seqloom.load("m").predict("new.csv")

Names are imported when they are asked for: ``import seqloom`` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison, compare
    from seqloom.app.diagnose import Diagnosis, diagnose
    from seqloom.app.fit import fit
    from seqloom.app.fitted import Fitted, load
    from seqloom.app.inspect import inspect
    from seqloom.data.columns import Columns
    from seqloom.data.reading import read
    from seqloom.data.sequences import Sequences
    from seqloom.training.source import FileSource

__version__ = "0.1.0"
__all__ = [
    "Columns",
    "Comparison",
    "Diagnosis",
    "FileSource",
    "Fitted",
    "Sequences",
    "compare",
    "diagnose",
    "fit",
    "inspect",
    "load",
    "read",
]
_HOMES = {
    "Columns": "data.columns",
    "Comparison": "app.compare",
    "Diagnosis": "app.diagnose",
    "FileSource": "training.source",
    "Fitted": "app.fitted",
    "Sequences": "data.sequences",
    "compare": "app.compare",
    "diagnose": "app.diagnose",
    "fit": "app.fit",
    "inspect": "app.inspect",
    "load": "app.fitted",
    "read": "data.reading",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module 'seqloom' has no attribute {name!r}")
    return getattr(importlib.import_module(f"seqloom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
