"""Hashes of code and configuration: what decides whether a result is stale.

A module's hash covers the modules of seqloom that it imports, transitively, as syntax trees without docstrings: a
comment or a new line makes nothing stale.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from seqloom.core import discovery

PACKAGE = "seqloom"


def code_hash(files: Iterable[Path]) -> str:
    """Hash of some source files and of everything of seqloom that they import."""
    closure: dict[str, str] = {}
    waiting = [Path(file).resolve() for file in files]
    while waiting:
        file = waiting.pop()
        name = _name(file)
        if name not in closure:
            closure[name], imports = _read(file)
            waiting += imports
    return _digest(json.dumps(sorted(closure.items())))


def config_hash(document: Mapping[str, Any]) -> str:
    """Hash of a JSON document, independent of the order of its keys."""
    return _digest(json.dumps(document, sort_keys=True, allow_nan=False))


def part_files(document: Any) -> Iterator[Path]:
    """Source files of all parts that a JSON form names: they are found by name, not imported."""
    if isinstance(document, Mapping):
        shelf, _, name = str(document.get("part", "")).rpartition("/")
        if shelf in discovery.SHELVES and name in discovery.names(shelf):
            yield discovery.path(shelf, name)
        for value in document.values():
            yield from part_files(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from part_files(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _name(file: Path) -> str:
    inside = discovery.ROOT in file.parents
    return str(file.relative_to(discovery.ROOT.parent)) if inside else file.name


@cache
def _read(file: Path) -> tuple[str, tuple[Path, ...]]:
    """A file's syntax without docstrings, and the files of seqloom that it imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports = tuple(dict.fromkeys(found for node in ast.walk(tree) for found in _imported(node)))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:]  # type: ignore[attr-defined]
    return ast.dump(tree), imports


def _imported(node: ast.AST) -> Iterator[Path]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return
    for name in names:
        if name.split(".")[0] != PACKAGE:
            continue
        base = discovery.ROOT.joinpath(*name.split(".")[1:])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                yield file
