"""Published language models of recurrent layers: what their options and weights are here.

    Mamba, Falcon Mamba     mamba layers without MLPs; Falcon's normalise step sizes and maps
    Mamba-2                 mamba2 layers without MLPs
    xLSTM (7B)              mlstm layers in the plain block, swiglu, logits capped softly
    RecurrentGemma          two rg_lru layers, one of local attention, geglu; embeddings scaled by sqrt(D)

Source: Gu and Dao, 2023, arXiv:2312.00752; Zuo et al., "Falcon Mamba", 2024, arXiv:2410.05355; Dao and Gu, 2024,
arXiv:2405.21060; Beck et al., "xLSTM 7B", 2025, arXiv:2503.13427; Botev et al., "RecurrentGemma", 2024,
arXiv:2404.07839.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch

from seqloom.core.errors import ConfigError
from seqloom.interop._attention_families import EMBEDDING, attention_links, gated_links, head, rotary
from seqloom.interop._links import Link, Options, biased, demand
from seqloom.layers.mlp import MLP
from seqloom.layers.norm import Norm
from seqloom.mixers._base import Mixer
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent.mlstm import MLSTM
from seqloom.mixers.ssm.mamba import Mamba
from seqloom.mixers.ssm.mamba2 import Mamba2
from seqloom.mixers.ssm.rg_lru import RGLRU
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM

MAMBA = {"into": "in_proj", "select": "x_proj", "step": "dt_proj", "output": "out_proj"}
MAMBA2 = {"into": "in_proj", "output": "out_proj"}


def mamba(options: Options) -> CausalLM.Config:
    """Our config of a Mamba or Falcon Mamba."""
    falcon = options["model_type"] == "falcon_mamba"
    demand(options, hidden_act=("silu", "swish"))
    if falcon:
        demand(options, mixer_rms_eps=(1e-6, None))
    width, rank = options["hidden_size"], options["time_step_rank"]
    layer = Mamba.Config(
        expand=_expand(options),
        state=options["state_size"],
        conv=options["conv_kernel"],
        rank=-(-width // 16) if rank == "auto" else rank,
        bias=options["use_bias"],
        conv_bias=options["use_conv_bias"],
        norm=falcon,
    )
    return _stack(options, layer, options["layer_norm_epsilon"], tied=True)


def mamba_links(options: Options) -> Iterator[Link]:
    """Layers without MLPs."""
    yield from _ends()
    for here, there in _layers(options):
        yield Link(f"{here}.mixer_norm.weight", (f"{there}.norm.weight",))
        for ours, theirs in MAMBA.items():
            on = options["use_bias"] if ours in ("into", "output") else ours == "step"
            yield from _renamed(f"{here}.mixer.{ours}", f"{there}.mixer.{theirs}", on)
        yield from _renamed(f"{here}.mixer.conv", f"{there}.mixer.conv1d", options["use_conv_bias"])
        yield Link(f"{here}.mixer.rate_log", (f"{there}.mixer.A_log",))
        yield Link(f"{here}.mixer.skip", (f"{there}.mixer.D",))
    yield from head(options, tied=True)


def mamba_options(config: CausalLM.Config, hidden: int, vocabulary: int) -> dict[str, Any]:
    """A Mamba's or Falcon Mamba's options for ours."""
    (layer,) = config.backbone.mixers
    if not isinstance(layer, Mamba.Config) or layer.selective != "all" or not layer.gate:
        raise ConfigError("a Mamba is made of gated mamba layers in which the input chooses everything")
    norms = {"model_type": "falcon_mamba", "mixer_rms_eps": 1e-6} if layer.norm else {"model_type": "mamba"}
    rank = layer.rank or -(-config.backbone.width // 16)
    return norms | _common(config, vocabulary, layer) | {"time_step_rank": rank}


def mamba2(options: Options) -> CausalLM.Config:
    """Our config of a Mamba-2."""
    demand(options, hidden_act=("silu", "swish"), layer_norm_epsilon=(1e-5,))
    inner = options["num_heads"] * options["head_dim"]
    if inner != _expand(options) * options["hidden_size"]:
        raise ConfigError(f"num_heads times head_dim is {inner}, not expand times hidden_size")
    low, high = (_number(bound) for bound in options["time_step_limit"])
    layer = Mamba2.Config(
        expand=_expand(options),
        head_width=options["head_dim"],
        state=options["state_size"],
        groups=options["n_groups"],
        conv=options["conv_kernel"],
        step_limit=(low, high),
        bias=options["use_bias"],
        conv_bias=options["use_conv_bias"],
    )
    return _stack(options, layer, options["layer_norm_epsilon"], tied=False)


def mamba2_links(options: Options) -> Iterator[Link]:
    """Layers without MLPs."""
    yield from _ends()
    for here, there in _layers(options):
        yield Link(f"{here}.mixer_norm.weight", (f"{there}.norm.weight",))
        for ours, theirs in MAMBA2.items():
            yield from _renamed(f"{here}.mixer.{ours}", f"{there}.mixer.{theirs}", options["use_bias"])
        yield Link(f"{here}.mixer.conv.weight", (f"{there}.mixer.conv1d.weight",), "taps")
        if options["use_conv_bias"]:
            yield Link(f"{here}.mixer.conv.bias", (f"{there}.mixer.conv1d.bias",))
        same = {"step_bias": "dt_bias", "decay_log": "A_log", "skip": "D", "norm.weight": "norm.weight"}
        for ours, theirs in same.items():
            yield Link(f"{here}.mixer.{ours}", (f"{there}.mixer.{theirs}",))
    yield from head(options, tied=False)


def mamba2_options(config: CausalLM.Config, hidden: int, vocabulary: int) -> dict[str, Any]:
    """A Mamba-2's options for ours."""
    (layer,), width = config.backbone.mixers, config.backbone.width
    if not isinstance(layer, Mamba2.Config) or layer.skip != "head":
        raise ConfigError("a Mamba-2 is made of mamba2 layers whose skip is one number a head")
    heads = layer.expand * width // layer.head_width
    own = {"num_heads": heads, "head_dim": layer.head_width, "n_groups": layer.groups, "chunk_size": 64}
    limits = {"time_step_limit": [_written(bound) for bound in layer.step_limit]}
    return {"model_type": "mamba2"} | _common(config, vocabulary, layer) | own | limits


def xlstm(options: Options) -> CausalLM.Config:
    """Our config of an xLSTM of the 7B's kind."""
    demand(options, v_dim_factor=(1, 1.0), weight_mode=("single",), norm_eps=(1e-6,), add_out_norm=(True, None))
    demand(options, use_bias=(False,))  # it would give the root-mean-square norms of the stream a bias
    width, multiple = options["hidden_size"], options["ffn_round_up_to_multiple_of"]
    hidden = math.ceil(width * options["ffn_proj_factor"] / multiple) * multiple
    layer = MLSTM.Config(
        block="plain",
        heads=options["num_heads"],
        key_factor=options["qk_dim_factor"],
        cap=options["gate_soft_cap"],
    )
    backbone = Backbone.Config(
        width=width,
        layers=options.get("num_blocks") or options["num_hidden_layers"],
        mixers=(layer,),
        mlp=MLP.Config(kind="swiglu", hidden=hidden / width, multiple=1),
        norm=Norm.Config(kind="rms", eps=options["norm_eps"]),
    )
    tied = bool(options.get("tie_word_embeddings"))
    return CausalLM.Config(backbone=backbone, tie=tied, cap=options["output_logit_soft_cap"])


def xlstm_links(options: Options) -> Iterator[Link]:
    """Four matrices are one of queries, keys, values and gates here, two are one of the memory's gates."""
    width, heads, config = options["hidden_size"], options["num_heads"], xlstm(options)
    keys, hidden = int(width * options["qk_dim_factor"]), round((config.backbone.mlp or MLP.Config()).hidden * width)
    yield Link(EMBEDDING, ("embeddings.weight",))
    for layer in range(config.backbone.layers):
        here, there = f"backbone.blocks.{layer}", f"blocks.{layer}"
        cell = f"{there}.mlstm_layer"
        yield Link(f"{here}.mixer_norm.weight", (f"{there}.norm_mlstm.weight",))
        parts = tuple(f"{cell}.{name}.weight" for name in ("q", "k", "v", "ogate_preact"))
        yield Link(f"{here}.mixer.into.weight", parts, sizes=(keys, keys, width, width))
        for kind in ("weight", "bias"):
            gates = tuple(f"{cell}.{name}_preact.{kind}" for name in ("igate", "fgate"))
            yield Link(f"{here}.mixer.gates.{kind}", gates, sizes=(heads, heads))
        yield Link(f"{here}.mixer.norm_weight", (f"{cell}.multihead_norm.weight",))
        yield Link(f"{here}.mixer.output.weight", (f"{cell}.out_proj.weight",))
        yield Link(f"{here}.mlp_norm.weight", (f"{there}.norm_ffn.weight",))
        ups = tuple(f"{there}.ffn.{name}.weight" for name in ("proj_up_gate", "proj_up"))
        yield Link(f"{here}.mlp.up.weight", ups, sizes=(hidden, hidden))
        yield Link(f"{here}.mlp.down.weight", (f"{there}.ffn.proj_down.weight",))
    yield Link("backbone.norm.weight", ("out_norm.weight",))
    yield from head(options, tied=False)


def recurrent_gemma(options: Options) -> CausalLM.Config:
    """Our config of a RecurrentGemma. The head is the embedding without its scale: here they are two matrices."""
    demand(options, hidden_activation=("gelu_pytorch_tanh",), tie_word_embeddings=(True, None))
    width = options["hidden_size"]
    backbone = Backbone.Config(
        width=width,
        layers=options["num_hidden_layers"],
        mixers=_gemma_mixers(options),
        mlp=MLP.Config(kind="geglu_tanh", hidden=options["intermediate_size"] // 2 / width, multiple=1, bias=True),
        norm=Norm.Config(kind="rms", eps=options["rms_norm_eps"]),
    )
    return CausalLM.Config(backbone=backbone, tie=False, cap=options["logits_soft_cap"])


def recurrent_gemma_links(options: Options) -> Iterator[Link]:
    """Gains there are less one; the embedding's scale is rounded to bfloat16 there, and so it is here."""
    root = torch.tensor(options["hidden_size"] ** 0.5, dtype=torch.bfloat16)
    yield Link(EMBEDDING, ("embed_tokens.weight",), scale=float(root))
    yield Link("head.weight", ("embed_tokens.weight",))
    mixers = _gemma_mixers(options)
    for layer in range(options["num_hidden_layers"]):
        here, there, mixer = f"backbone.blocks.{layer}", f"layers.{layer}", mixers[layer % len(mixers)]
        yield Link(f"{here}.mixer_norm.weight", (f"{there}.temporal_pre_norm.weight",), "past_one")
        yield Link(f"{here}.mlp_norm.weight", (f"{there}.channel_pre_norm.weight",), "past_one")
        yield from gated_links(f"{here}.mlp", f"{there}.mlp_block", True, options["intermediate_size"] // 2)
        if isinstance(mixer, Attention.Config):
            yield from attention_links(mixer, f"{here}.mixer", f"{there}.temporal_block")
        else:
            yield from _griffin_links(f"{here}.mixer", f"{there}.temporal_block")
    yield Link("backbone.norm.weight", ("final_norm.weight",), "past_one")


def _griffin_links(here: str, there: str) -> Iterator[Link]:
    for ours, theirs in (("gate", "linear_y"), ("into", "linear_x"), ("output", "linear_out")):
        yield from _renamed(f"{here}.{ours}", f"{there}.{theirs}", True)
    yield Link(f"{here}.conv_weight", (f"{there}.conv_1d.weight",), "taps")
    yield Link(f"{here}.conv_bias", (f"{there}.conv_1d.bias",))
    yield Link(f"{here}.decay_logit", (f"{there}.rg_lru.recurrent_param",))
    for ours, theirs in (("recurrence_gate", "recurrent_gate"), ("input_gate", "input_gate")):
        yield Link(f"{here}.{ours}.weight", (f"{there}.rg_lru.{theirs}_weight",), "swapped")
        yield Link(f"{here}.{ours}.bias", (f"{there}.rg_lru.{theirs}_bias",), "flat")


def _gemma_mixers(options: Options) -> tuple[Mixer.Config, ...]:
    width, heads = options["hidden_size"], options["num_attention_heads"]
    kinds: dict[str, Mixer.Config] = {
        "recurrent": RGLRU.Config(
            hidden=options.get("lru_width") or width, conv=options["conv1d_width"], heads=heads, sharpness=8.0
        ),
        "attention": Attention.Config(
            heads=heads,
            kv_heads=options.get("num_key_value_heads") or heads,
            head_width=options.get("head_dim") or width // heads,
            window=options.get("attention_window_size") or options["sliding_window"],
            rotary=rotary(options, 0.5),
            qkv_bias=bool(options.get("attention_bias")),
            out_bias=True,
        ),
    }
    names = tuple(options.get("block_types") or options.get("_block_types") or ())
    strange = next((name for name in names if name not in kinds), None)
    if strange is not None or not names:
        raise ConfigError(f"block_types {names} has no counterpart here; there are {', '.join(kinds)}")
    return tuple(kinds[name] for name in names[: options["num_hidden_layers"]])


def _number(bound: Any) -> float:
    """JSON has no infinity: a file has ``{"__float__": "Infinity"}`` instead."""
    return float(bound["__float__"] if isinstance(bound, dict) else bound)


def _written(bound: float) -> Any:
    return bound if math.isfinite(bound) else {"__float__": "Infinity" if bound > 0 else "-Infinity"}


def _expand(options: Options) -> int:
    expand = options["expand"]
    if int(expand) != expand:
        raise ConfigError(f"expand = {expand} has no counterpart here; it must be whole")
    return int(expand)


def _stack(options: Options, layer: Mixer.Config, eps: float, *, tied: bool) -> CausalLM.Config:
    backbone = Backbone.Config(
        width=options["hidden_size"],
        layers=options["num_hidden_layers"],
        mixers=(layer,),
        mlp=None,
        norm=Norm.Config(kind="rms", eps=eps),
        residual_float32=bool(options["residual_in_fp32"]),
    )
    return CausalLM.Config(backbone=backbone, tie=bool(options.get("tie_word_embeddings", tied)))


def _ends() -> Iterator[Link]:
    """What surrounds the layers of a Mamba."""
    yield Link(EMBEDDING, ("embeddings.weight",))
    yield Link("backbone.norm.weight", ("norm_f.weight",))


def _layers(options: Options) -> Iterator[tuple[str, str]]:
    """Names of each layer here and there."""
    for layer in range(options["num_hidden_layers"]):
        yield f"backbone.blocks.{layer}", f"layers.{layer}"


def _renamed(here: str, there: str, bias: bool) -> Iterator[Link]:
    for ours, theirs in zip(biased(here, bias), biased(there, bias), strict=True):
        yield Link(ours, (theirs,))


def _common(config: CausalLM.Config, vocabulary: int, layer: Mamba.Config | Mamba2.Config) -> dict[str, Any]:
    backbone = config.backbone
    return {
        "vocab_size": vocabulary,
        "hidden_size": backbone.width,
        "state_size": layer.state,
        "num_hidden_layers": backbone.layers,
        "layer_norm_epsilon": backbone.norm.eps,
        "expand": layer.expand,
        "conv_kernel": layer.conv,
        "use_bias": layer.bias,
        "use_conv_bias": layer.conv_bias,
        "hidden_act": "silu",
        "residual_in_fp32": backbone.residual_float32,
        "tie_word_embeddings": config.tie,
    }
