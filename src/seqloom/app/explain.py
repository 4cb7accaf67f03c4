"""What a part is: its docstring, its traits, its fields with their defaults, and who runs a kernel."""

import ast
import inspect
import itertools
from dataclasses import MISSING, fields
from typing import Any

import torch

from seqloom.core import discovery
from seqloom.core.component import Component

SHELVES = {
    "kernel": ("kernels",),
    "mixer": ("mixers",),
    "model": ("models/classical", "models", "recipes"),
    "tokenizer": ("tokenizers",),
    "objective": ("objectives",),
    "decoder": ("decoding",),
    "reader": ("data/readers",),
}


def shelf_of(what: str, name: str) -> str | None:
    """The shelf on which such a part stands."""
    return next((shelf for shelf in SHELVES[what] if name in discovery.names(shelf)), None)


def explain(shelf: str, name: str) -> dict[str, Any]:
    """Everything that can be said about a part, ready for JSON."""
    part: Any = discovery.get(shelf, name)
    about = inspect.cleandoc(discovery.module(shelf, name).__doc__ or part.__doc__ or "")
    document: dict[str, Any] = {"part": f"{shelf}/{name}", "about": about}
    if isinstance(part, type) and issubclass(part, Component):
        document["fields"] = fields_of(part.Config)
    if shelf == "mixers":
        traits = part.Config().traits()
        document["traits"] = {item.name: _plain(getattr(traits, item.name)) for item in fields(traits)}
    if shelf == "kernels":
        document["dispatch"] = _dispatch(part)
    return document


def fields_of(config: Any) -> list[dict[str, str]]:
    """Name, type, default and docstring of every field of a Config."""
    words = _docstrings(config)
    found = []
    for item in fields(config):
        if item.default is not MISSING:
            default = repr(item.default)
        else:
            default = repr(item.default_factory()) if item.default_factory is not MISSING else "required"
        kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))
        found.append({"field": item.name, "type": kind, "default": default, "about": words.get(item.name, "")})
    return found


def lines(document: dict[str, Any]) -> list[str]:
    """For people."""
    out = [document["part"], "", document["about"]]
    if document.get("fields"):
        out += ["", "fields of Config:"]
        out += [f"  {f['field']} = {f['default']}\n      {f['about']}" for f in document["fields"]]
    if "traits" in document:
        out += ["", "traits at the default options:"]
        out += [f"  {name}: {value}" for name, value in document["traits"].items()]
    if "dispatch" in document:
        case = document["dispatch"]
        out += ["", f"called with {case['inputs']}:"]
        out += [f"  {'->' if v['runs'] else '  '} {v['backend']}: {v['reason']}" for v in case["verdicts"]]
    return out


def _dispatch(kernel: Any) -> dict[str, Any]:
    """Verdicts on the largest of the kernel's own cases, here and now, in float32."""
    cases = kernel.generate(torch.Generator().manual_seed(0), torch.float32)
    largest = max(cases, key=lambda inputs: sum(x.numel() for x in inputs if isinstance(x, torch.Tensor)))
    verdicts = [{"backend": v.backend, "runs": v.runs, "reason": v.reason} for v in kernel.explain(*largest)]
    return {"inputs": ", ".join(map(_shape, largest)), "verdicts": verdicts}


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} on {value.device}"
    return repr(value)


def _docstrings(config: Any) -> dict[str, str]:
    """The strings under the fields, those of base classes too."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[union-attr]
    return found


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else value
