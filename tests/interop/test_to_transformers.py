"""Models of ours as folders that transformers loads, and what is refused by name."""

import json
from dataclasses import replace

import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.interop.from_transformers import from_transformers
from seqloom.interop.to_transformers import to_transformers
from seqloom.layers.mlp import MLP
from seqloom.layers.norm import Norm
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent.lstm import LSTM
from seqloom.mixers.ssm.mamba import Mamba
from seqloom.mixers.ssm.mamba2 import Mamba2
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM

SIZE = 23
STACK = Backbone.Config(width=16, layers=2)
LAYER = Norm.Config(kind="layer")
GPT2 = Attention.Config(heads=2, rotary=None, qkv_bias=True, out_bias=True)
MODELS = {
    "MambaForCausalLM": CausalLM.Config(backbone=replace(STACK, mixers=(Mamba.Config(state=4),), mlp=None)),
    "FalconMambaForCausalLM": CausalLM.Config(
        backbone=replace(STACK, mixers=(Mamba.Config(state=4, norm=True),), mlp=None)
    ),
    "Mamba2ForCausalLM": CausalLM.Config(
        backbone=replace(STACK, mixers=(Mamba2.Config(state=4, head_width=8),), mlp=None), tie=False
    ),
    "LlamaForCausalLM": CausalLM.Config(backbone=replace(STACK, mixers=(Attention.Config(heads=2),))),
    "MistralForCausalLM": CausalLM.Config(backbone=replace(STACK, mixers=(Attention.Config(heads=2, window=3),))),
    "Qwen2ForCausalLM": CausalLM.Config(backbone=replace(STACK, mixers=(Attention.Config(heads=2, qkv_bias=True),))),
    "GPT2LMHeadModel": CausalLM.Config(
        backbone=replace(STACK, mixers=(GPT2,), mlp=MLP.Config(kind="gelu_tanh", hidden=4.0, bias=True), norm=LAYER),
        positions=32,
    ),
}


def build(config):
    torch.manual_seed(2)
    model = CausalLM(Sizes(vocabulary=SIZE), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parity
@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_it_and_says_the_same(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, ids = build(MODELS[name]), torch.randint(6, SIZE, (2, 11))
    to_transformers(model, tmp_path)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == name
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(ids).logits, model(ids)[0].logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_it_comes_back_as_it_was(name, tmp_path):
    model = build(MODELS[name])
    to_transformers(model, tmp_path)
    again, ids = from_transformers(tmp_path), torch.tensor([[1, 7, 22, 9, 2]])
    with torch.no_grad():
        want = model(ids)[0].logits
        got = again.model(torch.tensor([again.encode(ids[0].tolist())]))[0].logits
    order = [again.foreign_V.index(foreign) for foreign in range(6, SIZE)]
    torch.testing.assert_close(got[..., order], want[..., 6:], rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [name]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (CausalLM.Config(backbone=replace(STACK, mixers=(LSTM.Config(),))), "LSTM"),
        (CausalLM.Config(backbone=replace(STACK, mixers=(Mamba.Config(), Attention.Config()))), "Mamba, Attention"),
        (CausalLM.Config(backbone=replace(STACK, mixers=(Mamba.Config(),))), "mlp"),
        (CausalLM.Config(backbone=replace(STACK, mixers=(Mamba.Config(gate=False),), mlp=None)), "gated"),
        (CausalLM.Config(backbone=replace(STACK, mixers=(Attention.Config(),), gated=True)), "gated"),
        (CausalLM.Config(backbone=replace(STACK, mixers=(Mamba.Config(),), mlp=None), cap=5.0), "cap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_be_lost_is_named_and_nothing_is_written(config, word, tmp_path):
    with pytest.raises(ConfigError, match=word):
        to_transformers(build(config), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
