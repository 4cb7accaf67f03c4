"""Published language models of attention layers: what their options and weights are here.

    GPT-2                        LayerNorm, learned positions, biases everywhere, gelu_tanh
    Llama, Mistral, Qwen2, 3     RMSNorm, rotary positions (halves), grouped queries, swiglu

Shapes: D width, N = (H + 2 G) K columns of queries, keys and values.
Source: Radford et al., 2019; Touvron et al., "LLaMA", 2023, arXiv:2302.13971; Jiang et al., "Mistral 7B", 2023,
arXiv:2310.06825; Yang et al., "Qwen2", 2024, arXiv:2407.10671; "Qwen3", 2025, arXiv:2505.09388.
"""

from collections.abc import Iterator
from typing import Any

from seqloom.core.errors import ConfigError
from seqloom.interop._links import Link, Options, biased, demand
from seqloom.layers.mlp import MLP
from seqloom.layers.norm import Norm
from seqloom.layers.rotary import Rotary
from seqloom.mixers.attention.attention import Attention
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM

GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
EMBEDDING = "input.embedding.weight"


def gpt2(options: Options) -> CausalLM.Config:
    """Our config of a GPT-2."""
    demand(options, scale_attn_weights=(True, None), scale_attn_by_inverse_layer_idx=(False, None))
    demand(options, add_cross_attention=(False, None), activation_function=tuple(GELUS))
    width, heads = options["n_embd"], options["n_head"]
    attention = Attention.Config(
        heads=heads, kv_heads=heads, head_width=width // heads, rotary=None, qkv_bias=True, out_bias=True
    )
    backbone = Backbone.Config(
        width=width,
        layers=options["n_layer"],
        mixers=(attention,),
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


def gpt2_links(options: Options) -> Iterator[Link]:
    """Conv1D keeps its matrix as (in, out)."""
    yield Link(EMBEDDING, ("wte.weight",))
    yield Link("input.position.weight", ("wpe.weight",))
    same = {"ln_1": "mixer_norm", "ln_2": "mlp_norm"}
    turned = {"attn.c_attn": "mixer.qkv", "attn.c_proj": "mixer.out", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
    for layer in range(options["n_layer"]):
        for theirs, ours in (*same.items(), *turned.items()):
            here, there = f"backbone.blocks.{layer}.{ours}", f"h.{layer}.{theirs}"
            yield Link(f"{here}.weight", (f"{there}.weight",), "turned" if theirs in turned else "same")
            yield Link(f"{here}.bias", (f"{there}.bias",))
    yield Link("backbone.norm.weight", ("ln_f.weight",))
    yield Link("backbone.norm.bias", ("ln_f.bias",))
    yield from head(options, tied=True)


def gpt2_options(config: CausalLM.Config, hidden: int, vocabulary: int) -> dict[str, Any]:
    """A GPT-2's options for ours."""
    backbone, kinds = config.backbone, {ours: theirs for theirs, ours in GELUS.items()}
    (attention,), norm, mlp = backbone.mixers, backbone.norm, backbone.mlp
    if not isinstance(attention, Attention.Config) or mlp is None:
        raise ConfigError("a GPT-2 is made of attention and MLP layers")
    return {
        "vocab_size": vocabulary,
        "n_positions": config.positions,
        "n_embd": backbone.width,
        "n_layer": backbone.layers,
        "n_head": attention.heads,
        "n_inner": hidden,
        "activation_function": kinds.get(mlp.kind, mlp.kind),
        "layer_norm_epsilon": norm.eps,
        "tie_word_embeddings": config.tie,
        "attn_pdrop": 0.0,
    }


def llama(options: Options) -> CausalLM.Config:
    """Our config of a Llama or one of its relatives."""
    width = options["hidden_size"]
    demand(options, hidden_act=("silu", "swish"), partial_rotary_factor=(1, 1.0, None))
    demand(options, use_sliding_window=(False, None))
    if options["model_type"] == "qwen3":
        demand(options, rms_norm_eps=(1e-6,))
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


def llama_links(options: Options) -> Iterator[Link]:
    """Three matrices are one of queries, keys and values here, two are one of gate and value."""
    attention, mlp_bias = _llama_attention(options), bool(options.get("mlp_bias"))
    yield Link(EMBEDDING, ("embed_tokens.weight",))
    for layer in range(options["num_hidden_layers"]):
        here, there = f"backbone.blocks.{layer}", f"layers.{layer}"
        yield Link(f"{here}.mixer_norm.weight", (f"{there}.input_layernorm.weight",))
        yield Link(f"{here}.mlp_norm.weight", (f"{there}.post_attention_layernorm.weight",))
        yield from attention_links(attention, f"{here}.mixer", f"{there}.self_attn")
        yield from gated_links(f"{here}.mlp", f"{there}.mlp", mlp_bias, options["intermediate_size"])
    yield Link("backbone.norm.weight", ("norm.weight",))
    yield from head(options, tied=False)


def attention_links(attention: Attention.Config, here: str, there: str) -> Iterator[Link]:
    """An attention layer with maps of its own for queries, keys and values."""
    sizes = tuple(heads * attention.head_width for heads in (attention.heads, *[attention.kv_heads] * 2))
    for ours, kind in zip(biased("qkv", attention.qkv_bias), ("weight", "bias"), strict=False):
        yield Link(f"{here}.{ours}", tuple(f"{there}.{name}_proj.{kind}" for name in "qkv"), sizes=sizes)
    for kind in biased("o_proj", attention.out_bias):
        yield Link(f"{here}.{kind.replace('o_proj', 'out')}", (f"{there}.{kind}",))
    for name in ("q_norm", "k_norm") if attention.qk_norm else ():
        yield Link(f"{here}.{name}.weight", (f"{there}.{name}.weight",))


def gated_links(here: str, there: str, bias: bool, hidden: int) -> Iterator[Link]:
    """A gated channel mixer."""
    for kind in ("weight", "bias") if bias else ("weight",):
        yield Link(f"{here}.up.{kind}", tuple(f"{there}.{n}_proj.{kind}" for n in ("gate", "up")), sizes=(hidden,) * 2)
        yield Link(f"{here}.down.{kind}", (f"{there}.down_proj.{kind}",))


def llama_options(config: CausalLM.Config, hidden: int, vocabulary: int) -> dict[str, Any]:
    """Options of a Llama, or of the relative that has what ours has: a window, norms of heads, biases of q, k and v."""
    backbone = config.backbone
    (attention,), mlp = backbone.mixers, backbone.mlp
    if not isinstance(attention, Attention.Config) or mlp is None or attention.rotary is None:
        raise ConfigError("a Llama is made of attention layers with rotary positions and of MLP layers")
    relative = "qwen3" if attention.qk_norm else "mistral" if attention.window else "llama"
    if attention.qkv_bias and not attention.out_bias and relative == "llama":
        relative = "qwen2"
    window = {"sliding_window": attention.window or None} if relative == "mistral" else {}
    return window | {
        "model_type": relative,
        "vocab_size": vocabulary,
        "hidden_size": backbone.width,
        "intermediate_size": hidden,
        "num_hidden_layers": backbone.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": backbone.norm.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": attention.rotary.theta},
        "attention_bias": attention.qkv_bias and relative != "qwen2",
        "mlp_bias": mlp.bias,
        "tie_word_embeddings": config.tie,
    }


def _llama_attention(options: Options) -> Attention.Config:
    kind, bias = options["model_type"], bool(options.get("attention_bias"))
    width, heads = options["hidden_size"], options["num_attention_heads"]
    return Attention.Config(
        heads=heads,
        kv_heads=options.get("num_key_value_heads") or heads,
        head_width=options.get("head_dim") or width // heads,
        window=(options.get("sliding_window") or 0) if kind == "mistral" else 0,
        rotary=rotary(options),
        qkv_bias=bias or kind == "qwen2",
        out_bias=bias,
        qk_norm=kind == "qwen3",
    )


def rotary(options: Options, fraction: float = 1.0) -> Rotary.Config:
    """Base of the rotary angles; scaled forms are refused."""
    given = options.get("rope_parameters") or options.get("rope_scaling") or {}
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind != "default":
        raise ConfigError(f"rotary scaling {kind!r} has no counterpart here; only 'default' can be imported")
    demand(given, partial_rotary_factor=(fraction, *((1, 1.0, None) if fraction == 1.0 else ())))
    theta = given.get("rope_theta") or options.get("rope_theta") or 10000.0
    return Rotary.Config(theta=float(theta), fraction=fraction)


def head(options: Options, *, tied: bool) -> Iterator[Link]:
    """The map onto the vocabulary, where it is not the embedding itself."""
    if not options.get("tie_word_embeddings", tied):
        yield Link("head.weight", ("lm_head.weight",))
