"""Public contract checks: what every kernel, mixer, objective, decoder and reader must satisfy, here and elsewhere.

Each ``check_...`` raises an AssertionError that names the broken promise. They need no test framework.
"""

import importlib
import importlib.util
from typing import Any


def __getattr__(name: str) -> Any:
    """``check_mixer`` lives in ``mixers``, ``check_classical`` in ``classical``: imported when it is asked for."""
    stem = name.removeprefix("check_")
    for home in (f"{__name__}.{stem}s", f"{__name__}.{stem}"):
        if stem.isidentifier() and stem != name and importlib.util.find_spec(home) is not None:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__} has no attribute {name!r}")
