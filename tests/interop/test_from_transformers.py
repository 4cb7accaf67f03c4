"""Models of transformers as our own: logits whole and stepped, generated tokens, refusals. Random weights, tiny."""

import json

import pytest
import torch

from seqloom.core.component import Value
from seqloom.core.errors import CheckpointError, ConfigError, DataError
from seqloom.core.specials import SPECIALS
from seqloom.decoding._base import PlainGrammar
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.interop.from_transformers import from_transformers

pytestmark = pytest.mark.parity

SIZE, LENGTH = 37, 9
ENDS = {"bos_token_id": 5, "eos_token_id": 9, "pad_token_id": None}
GPT2 = {
    "vocab_size": SIZE, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 50,
    "initializer_range": 0.4, **ENDS,
}  # fmt: skip
LLAMA = {
    "vocab_size": SIZE, "hidden_size": 24, "intermediate_size": 43, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "initializer_range": 0.4, **ENDS,
}  # fmt: skip
CASES = {
    "gpt2": ("GPT2", GPT2),
    "gpt2-untied-gelu": ("GPT2", {**GPT2, "tie_word_embeddings": False, "activation_function": "gelu"}),
    "gpt2-one-end": ("GPT2", {**GPT2, "bos_token_id": 9}),
    "llama": ("Llama", LLAMA),
    "llama-tied-biased": ("Llama", {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-padded": ("Llama", {**LLAMA, "pad_token_id": 0, "eos_token_id": [9, 11]}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": 4}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen3": ("Qwen3", LLAMA),
}


def foreign(case, dtype=torch.float64):
    transformers = pytest.importorskip("transformers")
    family, options = CASES[case]
    torch.manual_seed(3)
    name = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    config = getattr(transformers, f"{family}Config")(**options)
    model = getattr(transformers, name)(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and gains would hide behind 0 and 1
                parameter.add_(0.3 * torch.randn_like(parameter))
    if dtype == torch.float64:
        widen(model)
    return model


class Angles(torch.nn.Module):
    """Rotary tables by their definition, in float64."""

    def forward(self, x, position_ids):
        angle = position_ids[..., None].double() * 500.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()


def widen(model):
    """transformers keeps RMS norms and rotary tables in float32 where all else is float64: put torch's there."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = torch.nn.RMSNorm(len(child.weight), eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(parent, name, norm)
            if name == "rotary_emb":
                setattr(parent, name, Angles())


def tokens():
    ids = torch.randint(10, SIZE, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 5
    return ids


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_logits_whole_and_stepped(case, dtype, far):
    theirs, ids = foreign(case, dtype), tokens()
    imported = from_transformers(theirs)
    ours = torch.tensor([imported.encode(row) for row in ids.tolist()])
    with torch.no_grad():
        want = theirs(ids).logits
        whole = imported.model(ours)[0].logits
        state, steps = imported.model.initial_state(len(ids)), []
        for piece in (ours[:, :4], *ours[:, 4:].split(1, 1)):
            logits, state = imported.model.step(piece, state)
            steps.append(logits)
    assert whole.dtype == dtype
    known = [own for own, f in enumerate(imported.foreign_V) if f >= 0 and own not in imported.model.config.unpredicted]
    there = [imported.foreign_V[own] for own in known]
    assert sorted(there) == list(range(SIZE))
    for got in (whole, torch.cat(steps, 1)):
        torch.testing.assert_close(got[..., known], want[..., there], rtol=far, atol=far)
        torch.testing.assert_close(
            got.log_softmax(-1)[..., known], want.log_softmax(-1)[..., there], rtol=far, atol=far
        )


@pytest.mark.parametrize("case", ["gpt2", "llama", "llama-padded", "mistral", "qwen3"])
def test_generated_tokens(case):
    theirs, ids = foreign(case), tokens()[:, :5]
    imported = from_transformers(theirs)
    rows = [imported.encode(row)[1:] for row in ids.tolist()]
    silent = [imported.foreign_V[own] for own in (SPECIALS.bos, SPECIALS.pad)]  # ours never writes those
    silent = [foreign for foreign in silent if foreign >= 0]
    want = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0,
        suppress_tokens=silent,
    )[:, 5:]  # fmt: skip
    greedy = Greedy(Greedy.Config(grammar=PlainGrammar.Config(end=imported.ends)))
    done = greedy.decode(imported.model, prompts(rows), limit=20)
    for row in range(len(rows)):
        got = imported.decode(done.tokens_of(row))
        assert got == want[row, : len(got)].tolist()
        assert len(got) == 20 or got[-1] in (9, 11)


def test_every_end_of_a_chat_model_ends_a_text():
    theirs = foreign("llama-padded")
    with torch.no_grad():
        theirs.lm_head.weight[11] = 40 * theirs.model.norm.weight.sign()  # whatever comes, 11 is likely soon
        theirs.lm_head.weight[9] = 0
    imported = from_transformers(theirs)
    assert [imported.foreign_V[own] for own in imported.ends] == [9, 11]
    assert "11 also end a text" in imported.note
    greedy = Greedy(Greedy.Config(grammar=PlainGrammar.Config(end=imported.ends)))
    done = greedy.decode(imported.model, prompts([imported.encode(row)[1:] for row in tokens().tolist()]), limit=60)
    written = [imported.decode(done.tokens_of(row)) for row in range(done.batch)]
    assert any(row[-1] == 11 for row in written)
    assert not any(11 in row[:-1] for row in written)


@pytest.mark.parametrize("case", ["gpt2", "llama-tied-biased", "llama"])
def test_a_folder_gives_the_same_model(case, tmp_path):
    theirs = foreign(case, torch.float32)
    theirs.save_pretrained(tmp_path)
    there, here = from_transformers(tmp_path), from_transformers(theirs)
    assert there.foreign_V == here.foreign_V
    for name, value in here.model.state_dict().items():
        assert torch.equal(there.model.state_dict()[name], value), name
    assert Value.from_json(there.model.config.to_json()) == there.model.config
    assert from_transformers(tmp_path, dtype=torch.bfloat16).model.head.weight.dtype == torch.bfloat16


def test_a_folder_of_several_files(tmp_path):
    theirs = foreign("llama", torch.float32)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert torch.equal(from_transformers(tmp_path).model.head.weight, from_transformers(theirs).model.head.weight)
    index = tmp_path / "model.safetensors.index.json"
    for content, word in (
        (json.dumps({"weight_map": {"x": "../../x.safetensors"}}), "outside"),
        ("{}", "weight_map"),
        ("[", "index.json.*JSON"),
    ):
        index.write_text(content)
        with pytest.raises(DataError, match=word):
            from_transformers(tmp_path)


def test_a_tied_model_stays_tied_and_shares_nothing_with_the_foreign_one():
    theirs = foreign("gpt2")
    model = from_transformers(theirs).model
    assert model.head.weight is model.input.embedding.weight
    before = model.head.weight.detach().clone()
    with torch.no_grad():
        theirs.transformer.wte.weight.zero_()
    assert torch.equal(model.head.weight, before)


def test_ids_go_there_and_back_and_the_note_says_how():
    imported = from_transformers(foreign("llama-padded"))
    assert imported.foreign_V[:6] == (0, 5, 9, -1, -1, -1)
    assert imported.encode([5, 9, 0, 1, 11]) == [1, 2, 0, 6, imported.foreign_V.index(11)]
    assert imported.decode([1, 3, 6, 2]) == [5, 1, 9]
    assert "<eos> = 9" in imported.note
    with pytest.raises(ConfigError, match=f"no id {SIZE}"):
        imported.encode([5, SIZE])
    one = from_transformers(foreign("gpt2-one-end"))
    assert one.encode([9, 12, 9])[::2] == [SPECIALS.bos, SPECIALS.eos]
    assert SPECIALS.bos in one.model.config.unpredicted


def test_gradients_reach_the_imported_weights():
    model = from_transformers(foreign("llama")).model
    logits = model(torch.tensor([[1, 7, 8]]))[0].logits
    torch.nn.functional.cross_entropy(logits[0], torch.tensor([7, 8, 2])).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "bert"}, "bert"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"use_sliding_window": True}, "use_sliding_window"),
    ],
)
def test_options_without_a_counterpart_are_refused_by_name(change, word, tmp_path):
    foreign("llama", torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=word):
        from_transformers(tmp_path)


def test_qwen3_is_refused_where_its_inner_norms_would_differ(tmp_path):
    foreign("qwen3", torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 1e-5}))
    with pytest.raises(ConfigError, match="rms_norm_eps"):
        from_transformers(tmp_path)


def test_pickled_weights_are_refused_with_the_mend(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="safe_serialization"):
        from_transformers(tmp_path)


def test_broken_folders_say_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        from_transformers(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="JSON"):
        from_transformers(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        from_transformers(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        from_transformers(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    theirs = foreign("llama", torch.float32)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    options = json.loads(path.read_text())
    for change, word in (
        ({"num_hidden_layers": 3}, "lacks the weight"),
        ({"num_hidden_layers": 1}, "does not explain"),
        ({"intermediate_size": 44}, "do not fit"),
    ):
        path.write_text(json.dumps(options | change))
        with pytest.raises(CheckpointError, match=word):
            from_transformers(tmp_path)
