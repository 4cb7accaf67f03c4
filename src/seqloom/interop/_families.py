"""Families of published language models: their options and weights as ours, and back where there is a way back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.interop import _attention_families as attention
from seqloom.interop import _recurrent_families as recurrent
from seqloom.interop._links import Link, Options, exported, imported
from seqloom.models.causal_lm import CausalLM


@dataclass(frozen=True)
class Family:
    """How one kind of model is read, and written."""

    config: Callable[[Options], CausalLM.Config]
    links: Callable[[Options], Iterator[Link]]
    prefix: str
    """Before the name of every weight but the head's."""
    architecture: str = ""
    """Its class in transformers; empty where it is only read."""
    options: Callable[[CausalLM.Config, int, int], dict[str, Any]] | None = None
    """Its options for our config, the hidden width of the MLP and the size of the vocabulary."""


def _llama(architecture: str) -> Family:
    return Family(attention.llama, attention.llama_links, "model.", architecture, attention.llama_options)


FAMILIES: dict[str, Family] = {
    "gpt2": Family(attention.gpt2, attention.gpt2_links, "transformer.", "GPT2LMHeadModel", attention.gpt2_options),
    "llama": _llama("LlamaForCausalLM"),
    "mistral": _llama("MistralForCausalLM"),
    "qwen2": _llama("Qwen2ForCausalLM"),
    "qwen3": _llama("Qwen3ForCausalLM"),
    "mamba": Family(recurrent.mamba, recurrent.mamba_links, "backbone.", "MambaForCausalLM", recurrent.mamba_options),
    "falcon_mamba": Family(
        recurrent.mamba, recurrent.mamba_links, "backbone.", "FalconMambaForCausalLM", recurrent.mamba_options
    ),
    "mamba2": Family(
        recurrent.mamba2, recurrent.mamba2_links, "backbone.", "Mamba2ForCausalLM", recurrent.mamba2_options
    ),
    "xlstm": Family(recurrent.xlstm, recurrent.xlstm_links, "backbone."),
    "recurrent_gemma": Family(recurrent.recurrent_gemma, recurrent.recurrent_gemma_links, "model."),
}
PREFIXES = tuple(dict.fromkeys(family.prefix for family in FAMILIES.values()))


def family_of(options: Options) -> Family:
    """The family of a foreign model. Raises ConfigError where there is none."""
    kind = options.get("model_type")
    if kind not in FAMILIES:
        raise ConfigError(f"model_type {kind!r} cannot be imported; there are {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def config_of(options: Options) -> CausalLM.Config:
    """Our config for a foreign one. Raises ConfigError naming the first option that has no counterpart here."""
    family = family_of(options)
    try:
        return family.config(options)
    except KeyError as error:
        raise ConfigError(f"config.json of a {options['model_type']} lacks {error.args[0]!r}") from error


def weights_of(options: Options, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict for a foreign one; the vocabulary is still in the foreign order."""
    return imported(family_of(options).links(options), weights, PREFIXES)


def foreign_weights(options: Options, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Foreign tensors under their names for our state dict, whose vocabulary is in the foreign order."""
    family = family_of(options)
    bare = exported(family.links(options), ours)
    return {name if name == "lm_head.weight" else family.prefix + name: value for name, value in bare.items()}
