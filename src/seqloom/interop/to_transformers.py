"""A causal language model of ours as a folder that transformers loads.

    to_transformers(imported, "folder")        config.json and model.safetensors
    AutoModelForCausalLM.from_pretrained("folder")

Which family it becomes follows from its layers: GPT-2, Llama (or Mistral, Qwen2, Qwen3), Mamba (or Falcon Mamba),
Mamba-2. What is written is read back as a config and compared with the model's, so that no option is lost silently.
transformers itself is not needed.
"""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.files import check_writable, replacing, write_text
from seqloom.core.specials import SPECIALS
from seqloom.interop._families import FAMILIES, config_of, foreign_weights
from seqloom.interop._imported import Imported
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.ssm.mamba import Mamba
from seqloom.mixers.ssm.mamba2 import Mamba2
from seqloom.models.causal_lm import CausalLM

KINDS: dict[type, tuple[str, ...]] = {
    Attention.Config: ("llama", "gpt2"),
    Mamba.Config: ("mamba",),
    Mamba2.Config: ("mamba2",),
}
INITIAL = {Mamba.Config: ("dt",), Mamba2.Config: ("steps", "decay")}
"""Options that decide initial values alone."""


def to_transformers(model: CausalLM | Imported, folder: str | Path) -> Path:
    """Write a model as transformers' ``save_pretrained`` would.

    An ``Imported`` model is written with its foreign vocabulary; one of ours with our ids, specials first.

    Raises:
        ConfigError: a layer or an option has no counterpart there; names it.
    """
    source = model if isinstance(model, Imported) else Imported(model, tuple(range(model.sizes.vocabulary)))
    options, weights = _options(source), _weights(source)
    folder = Path(folder)
    check_writable(folder / "config.json")
    with replacing(folder / "model.safetensors") as file:
        save_file(foreign_weights(options, weights), file, metadata={"format": "pt"})
    write_text(folder / "config.json", json.dumps(options, indent=2) + "\n")
    return folder


def _options(source: Imported) -> dict[str, Any]:
    """The foreign options, proven by reading them back."""
    ours = _plain(source.model)
    (kind, *more) = {type(mixer) for mixer in ours.backbone.mixers}
    if more or kind not in KINDS:
        raise ConfigError(f"layers of {_names(ours)} are no model that transformers has")
    size, hidden = _foreign_size(source), _hidden(source.model)
    reasons = []
    for name in KINDS[kind]:
        options, lost = _read_back(name, ours, hidden, size)
        if lost is None:
            return options | _about(source, options)
        reasons.append(f"{name}: {lost}")
    raise ConfigError("the model has no counterpart in transformers; " + "; ".join(reasons))


def _read_back(name: str, ours: CausalLM.Config, hidden: int, size: int) -> tuple[dict[str, Any], str | None]:
    """The options of one family, and what they would lose."""
    made: Any = FAMILIES[name].options
    try:
        options = {"model_type": name} | made(ours, hidden, size)
        return options, next(_differences(ours, _plain_config(config_of(options))), None)
    except ConfigError as error:
        return {}, str(error)


def _about(source: Imported, options: dict[str, Any]) -> dict[str, Any]:
    """What else a config says."""
    foreign = source.foreign_V
    ends = [foreign[own] for own in source.ends]
    special = {"bos_token_id": foreign[SPECIALS.bos], "pad_token_id": foreign[SPECIALS.pad]}
    dtype = str(next(source.model.parameters()).dtype).removeprefix("torch.")
    return {
        "architectures": [FAMILIES[options["model_type"]].architecture],
        **{name: value if value >= 0 else None for name, value in special.items()},
        "eos_token_id": None if ends[0] < 0 else ends[0] if len(ends) == 1 else ends,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def _weights(source: Imported) -> dict[str, Tensor]:
    """Our state dict with the vocabulary in the foreign order."""
    ours = {name: value.detach().cpu() for name, value in source.model.state_dict().items()}
    own_F = torch.full((_foreign_size(source),), -1)
    for own, foreign in reversed(list(enumerate(source.foreign_V))):
        if foreign >= 0:
            own_F[foreign] = own
    for name in ("input.embedding.weight", "head.weight"):
        ours[name] = ours[name][own_F].contiguous()
    return ours


def _foreign_size(source: Imported) -> int:
    """Raises ConfigError where a foreign id has no vector here."""
    known = {foreign for foreign in source.foreign_V if foreign >= 0}
    size = max(known) + 1
    if len(known) != size:
        raise ConfigError(f"{size - len(known)} ids of the foreign vocabulary have no vector")
    return size


def _hidden(model: CausalLM) -> int:
    mlp = model.backbone.layers[0].mlp
    return 0 if mlp is None else mlp.hidden


def _plain(model: CausalLM) -> CausalLM.Config:
    """A model's config with its defaults worked out."""
    config, backbone = model.config, model.config.backbone
    mixers = tuple(block.mixer.config for block in model.backbone.layers)
    for block, mixer in zip(model.backbone.layers, mixers, strict=True):
        if isinstance(mixer, Mamba2.Config):
            mixers = tuple(replace(mixer, head_width=block.mixer.head_width) for _ in mixers)  # type: ignore[attr-defined]
    mlp = None if backbone.mlp is None else replace(backbone.mlp, hidden=_hidden(model) / backbone.width, multiple=1)
    return _plain_config(replace(config, backbone=replace(backbone, mixers=mixers, mlp=mlp)))


def _plain_config(config: CausalLM.Config) -> CausalLM.Config:
    backbone = config.backbone
    mixers = tuple(dict.fromkeys(_worked_out(mixer, backbone.width) for mixer in backbone.mixers))
    backbone = replace(backbone, mixers=mixers, dropout=0.0)
    return replace(config, backbone=backbone, dropout=0.0, unpredicted=())


def _worked_out(mixer: Any, width: int) -> Any:
    if isinstance(mixer, Attention.Config):
        heads = mixer.heads
        return replace(mixer, kv_heads=mixer.kv_heads or heads, head_width=mixer.head_width or width // heads)
    if isinstance(mixer, Mamba.Config):
        mixer = replace(mixer, rank=mixer.rank or -(-width // 16))
    plain = type(mixer)()
    return replace(mixer, **{name: getattr(plain, name) for name in INITIAL.get(type(mixer), ())})


def _differences(ours: Any, back: Any, where: str = "") -> Any:
    """Names of options that did not survive."""
    for field in fields(ours):
        one, other = getattr(ours, field.name), getattr(back, field.name, None)
        if is_dataclass(one) and type(one) is type(other):
            yield from _differences(one, other, f"{where}{field.name}.")
        elif isinstance(one, tuple) and one and is_dataclass(one[0]) and isinstance(other, tuple):
            if len(one) != len(other):
                yield f"layers of {len(one)} kinds"
            for a, b in zip(one, other, strict=False):
                yield from _differences(a, b, f"{where}{field.name}.")
        elif one != other:
            yield f"{where}{field.name} = {one!r} would be read as {other!r}"


def _names(config: CausalLM.Config) -> str:
    return ", ".join(dict.fromkeys(type(mixer).__qualname__.split(".")[0] for mixer in config.backbone.mixers))
