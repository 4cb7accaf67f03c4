"""What a part is: its docstring, its fields, what a mixer can do and costs, and who runs a kernel."""

import ast
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import torch

from seqloom.app._options import configured
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
LENGTHS = (1, 64, 256, 1024, 4096, 16384)
"""Positions for which the cost of a mixer is told."""


def shelf_of(what: str, name: str) -> str | None:
    """The shelf on which such a part stands."""
    return next((shelf for shelf in SHELVES[what] if name in discovery.names(shelf)), None)


def explain(shelf: str, name: str, *, options: Sequence[str] = (), width: int = 64) -> dict[str, Any]:
    """Everything that can be said about a part, ready for JSON.

    Args:
        shelf: Where it stands.
        name: Its name.
        options: Of a mixer: ``field=value``, for its traits and its cost.
        width: Of a mixer: what its cost is told for.
    """
    part: Any = discovery.get(shelf, name)
    about = inspect.cleandoc(discovery.module(shelf, name).__doc__ or part.__doc__ or "")
    document: dict[str, Any] = {"part": f"{shelf}/{name}", "about": about}
    if isinstance(part, type) and issubclass(part, Component):
        document["fields"] = fields_of(part.Config)
    if shelf == "mixers":
        document |= _mixer(name, options, width)
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
        out += ["", f"traits with {', '.join(document['options']) or 'the default options'}:"]
        out += [f"  {name}: {value}" for name, value in document["traits"].items() if name != "known_gaps"]
        gaps = document["traits"]["known_gaps"].items()
        out += ["", "known gaps:", *([f"  {check}: {why}" for check, why in gaps] or ["  none"])]
        out += ["", *_cost_lines(document["cost"])]
    if "dispatch" in document:
        case = document["dispatch"]
        out += ["", f"called with {case['inputs']}:"]
        out += [f"  {'->' if v['runs'] else '  '} {v['backend']}: {v['reason']}" for v in case["verdicts"]]
    return out


def _mixer(name: str, options: Sequence[str], width: int) -> dict[str, Any]:
    """Traits of a mixer with its options, and what it costs at some lengths."""
    config = configured(name, options)
    traits = config.traits()
    with torch.random.fork_rng(devices=[]):
        mixer = config.build(width)
    bound = traits.length_bound
    lengths = [length for length in LENGTHS if bound is None or length <= bound]
    parameters = sum(parameter.numel() for parameter in mixer.parameters())
    costs = [
        {
            "length": length,
            "flops": mixer.flops(length),
            "state_bytes": None if traits.step == "none" else mixer.state_bytes(length),
        }
        for length in lengths
    ]
    return {
        "options": list(options),
        "traits": {item.name: _plain(getattr(traits, item.name)) for item in fields(traits)},
        "cost": {"width": width, "parameters": parameters, "lengths": costs},
    }


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    out = [f"cost of one sequence at width {cost['width']} ({cost['parameters']:,} parameters), forward, in float32:"]
    out.append(f"  {'positions':>9}  {'FLOPs':>18}  {'a position':>12}  {'bytes of state':>14}")
    for one in cost["lengths"]:
        state = "none" if one["state_bytes"] is None else f"{one['state_bytes']:,}"
        each = one["flops"] / one["length"]
        out.append(f"  {one['length']:>9,}  {one['flops']:>18,}  {each:>12,.0f}  {state:>14}")
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
