"""Small real data sets that travel with the package; their sources and licences lie beside them.

    samples.names() -> ("austen", "flights", "lambda", "novels", "seattle")
    samples.path("flights")             the file, ready for any reader
    samples.about("flights")["licence"] what may be done with it, and who says so

A sample is three files with one stem: the data, ``<name>.json`` (what ``about`` returns) and ``<name>.LICENSE``.
"""

import json
from pathlib import Path
from typing import Any

from seqloom.core.errors import ConfigError

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The names of all samples, in alphabetical order."""
    return tuple(sorted(card.stem for card in _FOLDER.glob("*.json")))


def path(name: str) -> Path:
    """The data file of one sample."""
    return _FOLDER / about(name)["file"]


def about(name: str) -> dict[str, Any]:
    """What one sample is: file, description, source, url, licence, evidence, bytes and sha256."""
    if name not in names():
        raise ConfigError(f"there is no sample {name!r}; the samples are {', '.join(names())}")
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
