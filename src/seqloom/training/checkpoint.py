"""Tensors and JSON on disk, whole or not at all.

A checkpoint is one safetensors file with a JSON header. It is written beside its place, flushed to the disk, then
renamed; its content's SHA-256 is stored in it, so that a file cut short or edited is refused. Nothing is pickled.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack
from torch import Tensor

from seqloom.core.errors import CheckpointError, DataError
from seqloom.core.files import MEND, parsed, read_json, replacing, write_json, write_text

__all__ = ["load", "read_json", "replacing", "save", "write_json", "write_text"]

FORMAT = 1
KEY = "seqloom"


def save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata atomically. The same content gives the same bytes."""
    plain = {name: tensors[name].detach().contiguous().cpu().clone() for name in sorted(tensors)}
    note = json.dumps(dict(meta), sort_keys=True, allow_nan=False)
    # one key alone: safetensors writes the keys of its header in no fixed order
    header = {KEY: json.dumps({"format": FORMAT, "meta": note, "sha256": _digest(plain, note)})}
    with replacing(path) as part:
        part.write_bytes(pack(plain, header))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify a checkpoint; CheckpointError says what is wrong with it."""
    try:
        with safe_open(path, framework="pt") as file:
            header = parsed((file.metadata() or {}).get(KEY, "{}"), f"the header of {path}")
            _check_format(header, path)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except FileNotFoundError as error:  # of safetensors: it carries no number
        raise DataError("no such file", file=path, mend=f"{MEND}.") from error
    except (SafetensorError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: it was cut short or is no checkpoint ({error}). {MEND}"
        ) from error
    if header["sha256"] != _digest(tensors, header["meta"]):
        raise CheckpointError(f"{path} does not match its own checksum: it was edited or damaged. {MEND}")
    return tensors, parsed(header["meta"], f"the header of {path}")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a file, read from its header alone; CheckpointError where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError("no such file", file=path, mend=f"{MEND}.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: it was cut short or is no checkpoint ({error}). {MEND}"
        ) from error


def digest(path: Path) -> str:
    """The checksum that a checkpoint carries, as its header says it."""
    try:
        with safe_open(path, framework="pt") as file:
            header = parsed((file.metadata() or {}).get(KEY, "{}"), f"the header of {path}")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: it was cut short or is no checkpoint ({error}). {MEND}"
        ) from error
    _check_format(header, path)
    return header["sha256"]


def _check_format(header: Any, path: Path) -> None:
    """Refuse a header that this version did not write."""
    if not isinstance(header, dict) or not header:
        raise CheckpointError(f"{path} is no checkpoint of seqloom. {MEND}")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.get('format')}, this version reads {FORMAT}. Bring seqloom up to date"
        )
    if not (isinstance(header.get("sha256"), str) and isinstance(header.get("meta"), str)):
        raise CheckpointError(f"{path} has a header without a checksum: it was edited. {MEND}")


def _digest(tensors: Mapping[str, Tensor], note: str) -> str:
    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
