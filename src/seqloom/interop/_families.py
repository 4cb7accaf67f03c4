"""How families of published language models map onto ours: options first, then weights.

    GPT-2                        LayerNorm, learned positions, biases everywhere, gelu_tanh
    Llama, Mistral, Qwen2, 3     RMSNorm, rotary positions (halves), grouped queries, swiglu

Shapes: D width, N = (H + 2 G) K columns of queries, keys and values.
Source: Radford et al., 2019; Touvron et al., "LLaMA", 2023, arXiv:2302.13971; Jiang et al., "Mistral 7B", 2023,
arXiv:2310.06825; Yang et al., "Qwen2", 2024, arXiv:2407.10671; "Qwen3", 2025, arXiv:2505.09388.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.layers.mlp import MLP
from seqloom.layers.norm import Norm
from seqloom.layers.rotary import Rotary
from seqloom.mixers.attention.attention import Attention
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM

Options = Mapping[str, Any]
Weights = Mapping[str, Tensor]
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def config_of(options: Options) -> CausalLM.Config:
    """Our config for a foreign one. Raises ConfigError naming the first option that has no counterpart here."""
    kind = options.get("model_type")
    if kind == "gpt2":
        return _gpt2(options)
    if kind in LLAMAS:
        return _llama(options)
    raise ConfigError(f"model_type {kind!r} cannot be imported; there are gpt2, {', '.join(LLAMAS)}")


def weights_of(options: Options, weights: Weights) -> dict[str, Tensor]:
    """Our state dict for a foreign one; the vocabulary is still in the foreign order."""
    taken = _Taken(weights)
    pairs = _gpt2_weights(options, taken) if options["model_type"] == "gpt2" else _llama_weights(options, taken)
    ours = dict(pairs)
    taken.nothing_left()
    return ours


class _Taken:
    """Foreign weights, each to be taken once."""

    BUFFERS = ("attn.bias", "attn.masked_bias", "rotary_emb.inv_freq")

    def __init__(self, weights: Weights) -> None:
        """A prefix that all share is left out of the names."""
        self.left = {}
        for name, value in weights.items():
            for prefix in ("transformer.", "model."):
                name = name.removeprefix(prefix)
            self.left[name] = value

    def __call__(self, name: str) -> Tensor:
        """One weight by its name."""
        if name not in self.left:
            raise CheckpointError(f"the model lacks the weight {name!r}: is it a whole causal language model?")
        return self.left.pop(name)

    def nothing_left(self) -> None:
        """Raise CheckpointError if a weight would be dropped."""
        rest = sorted(name for name in self.left if not name.endswith(self.BUFFERS) and name != "lm_head.weight")
        if rest:
            raise CheckpointError(f"the model has weights that its config does not explain: {', '.join(rest[:5])}")


def _gpt2(options: Options) -> CausalLM.Config:
    _demand(options, scale_attn_weights=(True, None), scale_attn_by_inverse_layer_idx=(False, None))
    _demand(options, add_cross_attention=(False, None), activation_function=tuple(GELUS))
    width = options["n_embd"]
    backbone = Backbone.Config(
        width=width,
        layers=options["n_layer"],
        mixers=(Attention.Config(heads=options["n_head"], rotary=None, qkv_bias=True, out_bias=True),),
        mlp=MLP.Config(
            kind=GELUS[options["activation_function"]],  # type: ignore[arg-type]
            hidden=(options.get("n_inner") or 4 * width) / width,
            multiple=1,
            bias=True,
        ),
        norm=Norm.Config(kind="layer", eps=options["layer_norm_epsilon"]),
    )
    tied = options.get("tie_word_embeddings", True)
    return CausalLM.Config(backbone=backbone, tie=tied, positions=options["n_positions"])


def _llama(options: Options) -> CausalLM.Config:
    width = options["hidden_size"]
    _demand(options, hidden_act=("silu", "swish"), partial_rotary_factor=(1, 1.0, None))
    _demand(options, use_sliding_window=(False, None))
    _demand(options, rms_norm_eps=(1e-6,) if options["model_type"] == "qwen3" else None)
    backbone = Backbone.Config(
        width=width,
        layers=options["num_hidden_layers"],
        mixers=(_llama_attention(options),),
        mlp=MLP.Config(
            kind="swiglu",
            hidden=options["intermediate_size"] / width,
            multiple=1,
            bias=bool(options.get("mlp_bias")),
        ),
        norm=Norm.Config(kind="rms", eps=options["rms_norm_eps"]),
    )
    return CausalLM.Config(backbone=backbone, tie=bool(options.get("tie_word_embeddings")))


def _llama_attention(options: Options) -> Attention.Config:
    kind, biased = options["model_type"], bool(options.get("attention_bias"))
    width, heads = options["hidden_size"], options["num_attention_heads"]
    return Attention.Config(
        heads=heads,
        kv_heads=options.get("num_key_value_heads") or heads,
        head_width=options.get("head_dim") or width // heads,
        window=(options.get("sliding_window") or 0) if kind == "mistral" else 0,
        rotary=Rotary.Config(theta=float(_theta(options))),
        qkv_bias=biased or kind == "qwen2",
        out_bias=biased,
        qk_norm=kind == "qwen3",
    )


def _theta(options: Options) -> float:
    """Base of the rotary angles; scaled forms are refused."""
    given = options.get("rope_parameters") or options.get("rope_scaling") or {}
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind != "default":
        raise ConfigError(f"rotary scaling {kind!r} has no counterpart here; only 'default' can be imported")
    _demand(given, partial_rotary_factor=(1, 1.0, None))
    return given.get("rope_theta") or options.get("rope_theta") or 10000.0


def _demand(options: Options, **allowed: tuple[Any, ...] | None) -> None:
    for name, values in allowed.items():
        if values is not None and options.get(name) not in values:
            raise ConfigError(f"{name} = {options.get(name)!r} has no counterpart here; it must be one of {values}")


def _gpt2_weights(options: Options, take: _Taken) -> Iterator[tuple[str, Tensor]]:
    """Conv1D keeps its matrix as (in, out)."""
    yield "input.embedding.weight", take("wte.weight")
    yield "input.position.weight", take("wpe.weight")
    same = {"ln_1": "mixer_norm", "ln_2": "mlp_norm"}
    turned = {"attn.c_attn": "mixer.qkv", "attn.c_proj": "mixer.out", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
    for layer in range(options["n_layer"]):
        for theirs, ours in (*same.items(), *turned.items()):
            weight = take(f"h.{layer}.{theirs}.weight")
            yield f"backbone.blocks.{layer}.{ours}.weight", weight.t() if theirs in turned else weight
            yield f"backbone.blocks.{layer}.{ours}.bias", take(f"h.{layer}.{theirs}.bias")
    yield "backbone.norm.weight", take("ln_f.weight")
    yield "backbone.norm.bias", take("ln_f.bias")
    yield from _head(options, take, "input.embedding.weight", default=True)


def _llama_weights(options: Options, take: _Taken) -> Iterator[tuple[str, Tensor]]:
    """Three matrices become one of queries, keys and values, two become one of gate and value."""
    attention, biased = _llama_attention(options), bool(options.get("mlp_bias"))
    yield "input.embedding.weight", take("embed_tokens.weight")
    for layer in range(options["num_hidden_layers"]):
        here, there = f"layers.{layer}", f"backbone.blocks.{layer}"
        yield f"{there}.mixer_norm.weight", take(f"{here}.input_layernorm.weight")
        yield f"{there}.mlp_norm.weight", take(f"{here}.post_attention_layernorm.weight")
        for kind in ("weight", *(["bias"] if attention.qkv_bias else [])):
            yield f"{there}.mixer.qkv.{kind}", torch.cat([take(f"{here}.self_attn.{n}_proj.{kind}") for n in "qkv"])
        for kind in ("weight", *(["bias"] if attention.out_bias else [])):
            yield f"{there}.mixer.out.{kind}", take(f"{here}.self_attn.o_proj.{kind}")
        if attention.qk_norm:
            for name in ("q_norm", "k_norm"):
                yield f"{there}.mixer.{name}.weight", take(f"{here}.self_attn.{name}.weight")
        for kind in ("weight", *(["bias"] if biased else [])):
            yield f"{there}.mlp.up.{kind}", torch.cat([take(f"{here}.mlp.{n}_proj.{kind}") for n in ("gate", "up")])
            yield f"{there}.mlp.down.{kind}", take(f"{here}.mlp.down_proj.{kind}")
    yield "backbone.norm.weight", take("norm.weight")
    yield from _head(options, take, "input.embedding.weight", default=False)


def _head(options: Options, take: _Taken, embedding: str, *, default: bool) -> Iterator[tuple[str, Tensor]]:
    if not options.get("tie_word_embeddings", default):
        yield "head.weight", take("lm_head.weight")
