"""The folder of a fitted model: its files, whether they belong together, and whether they are of a sane size.

``config.json`` is written last, and seals the others: it holds the SHA-256 of each. A file that was cut short, edited
or taken from another model is refused by name; a folder that an older version wrote has no seal, and is read without.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.component import FORMAT
from seqloom.core.errors import CheckpointError, SeqloomError
from seqloom.core.files import MEND, inside, json_text, read_json, remove, write_text
from seqloom.training import checkpoint

WEIGHTS, CONFIG, VOCABULARY, RUN, METRICS = (
    "model.safetensors",
    "config.json",
    "vocabulary.json",
    "run.json",
    "metrics.json",
)
SEAL = "seal"
SANE = 1 << 20
"""An option may always be so large; a larger one must show in the size of the weights."""


def write(
    folder: Path, tensors: Mapping[str, Tensor], documents: Mapping[str, Any], files: Mapping[str, str], task: str
) -> None:
    """Write a model; every file whole or not at all, ``config.json`` last: without it there is no model.

    A model that was there ends first, so that a saving cut short leaves no mixture of both.
    """
    places = {name: inside(folder, name) for name in files}
    remove(folder / CONFIG)
    checkpoint.save(folder / WEIGHTS, tensors, {"task": task})
    texts = {name: json_text(document) for name, document in documents.items() if name != CONFIG}
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, text in files.items():
        write_text(places[name], text)
    seal = {name: _sum(text.encode()) for name, text in texts.items()}
    seal |= {WEIGHTS: checkpoint.digest(folder / WEIGHTS), CONFIG: _sum(_canonical(documents[CONFIG]))}
    write_text(folder / CONFIG, json_text({**documents[CONFIG], SEAL: seal}))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The documents of a model by file name. CheckpointError names the file that is not as it was written."""
    if not (folder / CONFIG).is_file():
        begun = (folder / "checkpoint.safetensors").is_file()
        mend = "its training did not end: fit again with --resume" if begun else "train one: seqloom fit FILE"
        raise CheckpointError(f"{folder} holds no finished model; {mend}")
    documents = {name: read_json(folder / name) for name in (CONFIG, VOCABULARY, RUN, METRICS)}
    for name, document in documents.items():
        if not isinstance(document, dict):
            raise CheckpointError(f"{folder / name} holds no JSON object: it was edited. {MEND}")
    if documents[CONFIG].get("format") != FORMAT:
        newer = f"has format {documents[CONFIG].get('format')!r}, this version reads {FORMAT}"
        raise CheckpointError(f"{folder / CONFIG} {newer}. Bring seqloom up to date, or fit the model again")
    seal = documents[CONFIG].pop(SEAL, None)
    if seal is not None:
        found = {name: _sum((folder / name).read_bytes()) for name in (VOCABULARY, RUN, METRICS)}
        found |= {CONFIG: _sum(_canonical(documents[CONFIG])), WEIGHTS: checkpoint.digest(folder / WEIGHTS)}
        for name, own in found.items():
            if not isinstance(seal, dict) or seal.get(name) != own:
                what = "it was edited, damaged, or taken from another model"
                raise CheckpointError(f"{folder / name} is not as it was saved: {what}. {MEND}")
    return documents


def check_sizes(model: Any, folder: Path) -> None:
    """Refuse a model that its weights cannot belong to, before any memory is taken for it.

    Args:
        model: A blueprint: what ``config.json`` says.
        folder: Where its weights are.
    """
    path, where = folder / WEIGHTS, folder / CONFIG
    held = checkpoint.shapes(path)
    most = max(path.stat().st_size, SANE)
    for name, value in _numbers(model.to_json()):
        if value > (len(held) if name == "layers" else most):
            raise CheckpointError(
                f"{where} says {name} {value}, which its weights of {path.stat().st_size:,} bytes cannot have. {MEND}"
            )
    if not issubclass(model.model.owner, nn.Module):
        return  # counts are checked where they are read
    try:
        with torch.device("meta"):  # shapes without memory
            wanted = {name: tuple(value.shape) for name, value in model.engine("meta").tensors().items()}
    except SeqloomError as error:
        raise CheckpointError(f"{where} cannot be read: {error}. {MEND}") from error
    except Exception:  # a part that cannot be built without memory is built with it, as it always was
        return
    if missing := sorted(wanted.keys() ^ held.keys()):
        raise CheckpointError(f"the weights do not fit the model of {where}: {missing[0]} is in one alone. {MEND}")
    for name, shape in wanted.items():
        if held.get(name) != shape:
            raise CheckpointError(
                f"the weights do not fit the model of {where}: {name} is {held.get(name)}, not {shape}. {MEND}"
            )


def _numbers(document: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number of a document under its key."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _numbers(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from _numbers(value, name)
    elif isinstance(document, int) and not isinstance(document, bool):
        yield name, document


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
