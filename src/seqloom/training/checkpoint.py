"""Tensors and JSON on disk, whole or not at all.

A checkpoint is one safetensors file with a JSON header. It is written beside its place, flushed to the disk, then
renamed; its content's SHA-256 is stored in it, so that a file cut short or edited is refused. Nothing is pickled.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack
from torch import Tensor

from seqloom.core.errors import CheckpointError, DataError, mend_os_error

FORMAT = 1
KEY = "seqloom"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed and takes the place of ``path``."""
    handle = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(number)
        handle = Path(name)
        yield handle
        _flush(handle)
        handle.chmod(0o644)
        handle.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise mend_os_error(error, error.filename or path) from error
    finally:
        if handle is not None:
            handle.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write JSON atomically, readable and stable."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; CheckpointError where it is cut short, OSError turned into a DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise mend_os_error(error, path) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON: it was cut short or edited ({error})") from error


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
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except FileNotFoundError as error:  # of safetensors: it carries no number
        raise DataError("no such file", file=path, mend="Copy the whole folder, or fit the model again.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: it was cut short or is no checkpoint ({error})") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {header.get('format')}, this version reads {FORMAT}")
    if header.get("sha256") != _digest(tensors, header.get("meta", "")):
        raise CheckpointError(f"{path} does not match its own checksum: it was edited or damaged")
    return tensors, json.loads(header["meta"])


def _digest(tensors: Mapping[str, Tensor], note: str) -> str:
    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
