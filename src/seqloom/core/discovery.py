"""Parts are found by the names of their files; nothing is imported until it is asked for, torch least of all.

A *shelf* is a folder that holds one part a file. A file's stem is the part's name, and the part is the
public object in it whose name, without case and underscores, is the stem. `_name.py` is never a part.
Packages from outside join by the entry-point group ``seqloom.<shelf with dots>``.
"""

import difflib
import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from seqloom.core.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
SHELVES = (
    "kernels",
    "data/readers",
    "data/synthetic",
    "tokenizers",
    "layers",
    "mixers",
    "models",
    "models/classical",
    "objectives",
    "decoding",
    "parallel",
    "compression",
    "solvers",
    "evaluation",
    "interop",
    "domains",
    "recipes",
    "claims",
    "cli",
)
PACKAGE_PARTS = ("kernels",)  # a part of these shelves is a folder with __init__.py, not a file


@cache
def _files(shelf: str) -> dict[str, Path]:
    """Name -> file of every part of our own on a shelf, subfolders included, other shelves left out."""
    folder = ROOT / shelf
    if shelf in PACKAGE_PARTS:
        found = [path for path in sorted(folder.glob("*/__init__.py")) if not path.parent.name.startswith("_")]
        return {path.parent.name: path for path in found}
    nested = [ROOT / other for other in SHELVES if other.startswith(shelf + "/")]
    parts: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).parts
        if any(piece.startswith("_") for piece in inside) or any(other in path.parents for other in nested):
            continue
        if path.stem in parts:
            raise ConfigError(f"two files are named {path.stem} on the shelf {shelf}: {parts[path.stem]} and {path}")
        parts[path.stem] = path
    return parts


@cache
def _foreign(shelf: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="seqloom." + shelf.replace("/", "."))}


def names(shelf: str) -> tuple[str, ...]:
    """Names on a shelf, sorted; imports nothing."""
    _check_shelf(shelf)
    return tuple(sorted({*_files(shelf), *_foreign(shelf)}))


def path(shelf: str, name: str) -> Path:
    """The source file of one of our own parts."""
    _check_shelf(shelf)
    if name not in _files(shelf):
        raise ConfigError(_unknown(shelf, name))
    return _files(shelf)[name]


def module(shelf: str, name: str) -> ModuleType:
    """Import the file that holds a part. Only names that were found on the shelf can be imported."""
    _check_shelf(shelf)
    if name in _files(shelf):
        inside = _files(shelf)[name].relative_to(ROOT.parent).with_suffix("").parts
        return importlib.import_module(".".join(inside).removesuffix(".__init__"))
    if name in _foreign(shelf):
        return importlib.import_module(_foreign(shelf)[name].module)
    raise ConfigError(_unknown(shelf, name))


def get(shelf: str, name: str) -> object:
    """The public object of a part: the one whose name is the file's stem without case and underscores."""
    home = module(shelf, name)
    for attribute, value in vars(home).items():
        if attribute.replace("_", "").lower() == name.replace("_", "").lower() and not attribute.startswith("_"):
            return value
    raise ConfigError(f"{home.__name__} holds no public object called after its file")


def summary(shelf: str, name: str) -> str:
    """First line of a part's docstring, read from the text of its file without importing it."""
    if name not in _files(shelf):
        return ""
    text = path(shelf, name).read_text(encoding="utf-8")
    return text.split('"""', 2)[1].strip().splitlines()[0] if text.startswith('"""') else ""


def shelf_of(package: str) -> tuple[Callable[[], tuple[str, ...]], Callable[[str], object]]:
    """``names, get`` of one shelf: what each shelf's ``__init__`` publishes."""
    shelf = package.removeprefix("seqloom.").replace(".", "/")
    return (lambda: names(shelf)), (lambda name: get(shelf, name))


def _check_shelf(shelf: str) -> None:
    if shelf not in SHELVES:
        raise ConfigError(f"no shelf is called {shelf!r}; there are {', '.join(SHELVES)}")


def _unknown(shelf: str, name: str) -> str:
    known = names(shelf)
    close = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known) or 'none'}"
    return f"{shelf} has no part called {name!r}; {hint}"
