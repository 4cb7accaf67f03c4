"""Language models of the transformers library as our own: attention, Mamba, xLSTM, RecurrentGemma.

    imported = from_transformers("folder")        config.json and *.safetensors; nothing is ever unpickled
    imported.model(imported.encode(ids))          our ids: specials first, then the foreign order

transformers itself is not needed.

Shapes: V our vocabulary, F theirs, D width.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from seqloom.core.errors import CheckpointError, ConfigError, DataError, mend_os_error
from seqloom.core.specials import SPECIALS
from seqloom.interop._families import config_of, weights_of
from seqloom.interop._imported import Imported, built

MEND = "Save it with model.save_pretrained(folder, safe_serialization=True) where you trust it."


def from_transformers(source: str | Path | torch.nn.Module, *, dtype: torch.dtype | None = None) -> Imported:
    """Import a causal language model.

    Args:
        source: a local folder that ``save_pretrained`` wrote, or a model of transformers.
        dtype: of the parameters; None = as they are stored.

    Raises:
        ConfigError: an option has no counterpart here; names it.
        CheckpointError: a weight is missing, left over or of the wrong shape.
        DataError: the folder lacks a file, or holds pickled weights alone.
    """
    options, weights = _read(Path(source)) if isinstance(source, str | Path) else _look(source)
    config, tensors = config_of(options), weights_of(options, weights)
    size = len(tensors["input.embedding.weight"])
    foreign_V = _dictionary(options, size)
    shared = foreign_V[SPECIALS.bos] == foreign_V[SPECIALS.eos]
    absent = [own for own, foreign in enumerate(foreign_V) if foreign < 0 or (own == SPECIALS.bos and shared)]
    config = replace(config, unpredicted=tuple(absent))
    for name in {"input.embedding.weight", "head.weight"} & set(tensors):
        tensors[name] = _in_our_order(tensors[name], foreign_V)
    ends = (SPECIALS.eos, *(foreign_V.index(foreign) for foreign in _ends(options, size)[1:]))
    tensors = {name: value.to(dtype).contiguous() for name, value in tensors.items()}
    return Imported(built(config, tensors, len(foreign_V)), foreign_V, ends)


def _look(model: torch.nn.Module) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Options and weights of a model object."""
    options: Any = getattr(model, "config", None)
    if not hasattr(options, "to_dict"):
        raise ConfigError(f"{type(model).__name__} is neither a folder nor a model of transformers")
    return options.to_dict(), {name: value.detach().clone() for name, value in model.state_dict().items()}


def _read(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Options and weights of a folder."""
    try:
        options = _object(folder / "config.json")
        files = _files(folder)
        weights: dict[str, Tensor] = {}
        for file in files:
            weights |= load_file(file)
    except OSError as error:
        raise mend_os_error(error, error.filename or folder) from error
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: the weights cannot be read ({error}): download them again") from error
    return options, weights


def _object(file: Path) -> dict[str, Any]:
    """One JSON object."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("is not readable JSON", file=file, mend="Download it again.") from error
    if not isinstance(document, dict):
        raise DataError("holds no object", file=file, mend="Download it again.")
    return document


def _files(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        named = _object(index).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise DataError("names no weight_map of files", file=index, mend="Download it again.")
        files = [folder / name for name in sorted(set(named.values()))]
        if any(file.parent != folder for file in files):
            raise DataError("names files outside its folder", file=index, mend="Do not use it.")
        return files
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise DataError("holds pickled weights alone, which could run any code", file=folder, mend=MEND)
    raise DataError("holds no model.safetensors", file=folder, mend="Name a folder that save_pretrained wrote.")


def _dictionary(options: Mapping[str, Any], size: int) -> tuple[int, ...]:
    """The foreign id of each of ours: specials first, then every other id in its order."""

    def one(name: str) -> int:
        given = options.get(name)
        return given if isinstance(given, int) and 0 <= given < size else -1

    bos, eos, pad = one("bos_token_id"), (_ends(options, size) or [-1])[0], one("pad_token_id")
    first = [-1] * SPECIALS.count
    first[SPECIALS.bos], first[SPECIALS.eos] = bos, eos
    first[SPECIALS.pad] = -1 if pad in (bos, eos) else pad
    return (*first, *(token for token in range(size) if token not in first))


def _ends(options: Mapping[str, Any], size: int) -> list[int]:
    """The foreign ids that end a text, each once."""
    given = options.get("eos_token_id")
    every = given if isinstance(given, list) else [given]
    return [end for end in dict.fromkeys(every) if isinstance(end, int) and 0 <= end < size]


def _in_our_order(weight_FD: Tensor, foreign_V: tuple[int, ...]) -> Tensor:
    """Rows in our order; symbols that the model has never seen are zero vectors."""
    rows_V = torch.tensor(foreign_V)
    return weight_FD[rows_V.clamp_min(0)].masked_fill((rows_V < 0)[:, None], 0)
