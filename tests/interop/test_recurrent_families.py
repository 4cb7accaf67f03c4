"""Recurrent models of transformers as our own: logits whole and stepped, gradients, generated tokens, our file."""

import pytest
import torch

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.decoding._base import PlainGrammar
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.interop._imported import Imported
from seqloom.interop.from_transformers import from_transformers
from seqloom.interop.to_transformers import to_transformers

pytestmark = pytest.mark.parity

SIZE = 37
ENDS = {"bos_token_id": 5, "eos_token_id": 9, "pad_token_id": None}
MAMBA = {"vocab_size": SIZE, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 2, **ENDS}
MAMBA2 = {
    "vocab_size": SIZE, "hidden_size": 16, "num_heads": 4, "head_dim": 8, "state_size": 6, "n_groups": 2,
    "num_hidden_layers": 2, "chunk_size": 4, **ENDS,
}  # fmt: skip
XLSTM = {
    "vocab_size": SIZE, "hidden_size": 16, "num_heads": 2, "num_hidden_layers": 2, "qk_dim_factor": 1.0,
    "chunk_size": 8, "use_cache": False, "ffn_round_up_to_multiple_of": 8, "autocast_kernel_dtype": "float32", **ENDS,
}  # fmt: skip
GEMMA = {
    "vocab_size": SIZE, "hidden_size": 24, "intermediate_size": 60, "num_hidden_layers": 4, "num_attention_heads": 3,
    "num_key_value_heads": 1, "attention_window_size": 5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}, **ENDS,
}  # fmt: skip
CASES = {
    "mamba": ("Mamba", MAMBA),
    "mamba-untied-biased": ("Mamba", {**MAMBA, "tie_word_embeddings": False, "use_bias": True, "time_step_rank": 3}),
    "falcon-mamba": ("FalconMamba", MAMBA),
    "mamba2": ("Mamba2", MAMBA2),
    "mamba2-limits": ("Mamba2", {**MAMBA2, "n_groups": 1, "time_step_limit": (0.01, 0.3), "use_bias": True}),
    "xlstm": ("xLSTM", XLSTM),
    "recurrent-gemma": ("RecurrentGemma", GEMMA),
}
BACK = ["mamba", "mamba-untied-biased", "falcon-mamba", "mamba2", "mamba2-limits"]


def foreign(case):
    """Random weights, biases and gains moved away from 0 and 1, behind which a mistake could hide."""
    transformers = pytest.importorskip("transformers")
    family, options = CASES[case]
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**options)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def tokens(rows=2, length=13):
    ids = torch.randint(10, SIZE, (rows, length), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 5
    return ids


def ours_of(imported, ids):
    return torch.tensor([imported.encode(row) for row in ids.tolist()])


def shown(imported, logits):
    """In the foreign order."""
    return logits[..., [imported.foreign_V.index(foreign) for foreign in range(SIZE)]]


@pytest.mark.parametrize("case", CASES)
def test_logits_whole_and_stepped(case):
    theirs, ids = foreign(case), tokens()
    imported = from_transformers(theirs)
    ours = ours_of(imported, ids)
    with torch.no_grad():
        want = theirs(ids).logits
        whole = imported.model(ours)[0].logits
        state, steps = imported.model.initial_state(len(ids)), []
        for piece in (ours[:, :6], *ours[:, 6:].split(1, 1)):
            logits, state = imported.model.step(piece, state)
            steps.append(logits)
    for got in (whole, torch.cat(steps, 1)):  # a capped sum over float32 scans in another order
        torch.testing.assert_close(shown(imported, got), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["mamba", "falcon-mamba", "mamba2", "xlstm", "recurrent-gemma"])
def test_one_backward_pass(case):
    """The loss' gradient of the embedding, which everything lies before."""
    theirs, ids = foreign(case), tokens()
    imported = from_transformers(theirs)
    ours, weight = ours_of(imported, ids), torch.randn(2, 13, SIZE)
    embedding = theirs.get_input_embeddings().weight
    (want,) = torch.autograd.grad((theirs(ids).logits * weight).sum(), embedding)
    own = imported.model.input.embedding.weight
    leaves = [own] if imported.model.config.tie else [own, imported.model.head.weight]
    logits = shown(imported, imported.model(ours)[0].logits)
    got, *head = torch.autograd.grad((logits * weight).sum(), leaves)
    if case == "recurrent-gemma":  # one matrix there, two here: the embedding's, scaled, and the head's
        got = got * float(torch.tensor(24**0.5).bfloat16()) + head[0]
    seen = torch.unique(ids) if not imported.model.config.tie and case != "recurrent-gemma" else torch.arange(SIZE)
    got = torch.stack([got[imported.foreign_V.index(int(foreign))] for foreign in seen])
    torch.testing.assert_close(got, want[seen], rtol=2e-3, atol=2e-3 * float(want.abs().max()))


@pytest.mark.parametrize("case", ["mamba", "falcon-mamba", "mamba2", "xlstm", "recurrent-gemma"])
def test_generated_tokens(case):
    """Greedy steps of ours against whole passes of theirs over what was written so far."""
    theirs, ids = foreign(case), tokens(length=6)
    imported = from_transformers(theirs)
    greedy = Greedy(Greedy.Config(grammar=PlainGrammar.Config(end=())))
    done = greedy.decode(imported.model, prompts([imported.encode(row)[1:] for row in ids.tolist()]), limit=15)
    silent = [imported.foreign_V[own] for own in (SPECIALS.bos, SPECIALS.pad)]
    with torch.no_grad():
        for _ in range(15):
            logits = theirs(ids).logits[:, -1]
            logits[:, [foreign for foreign in silent if foreign >= 0]] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1)[:, None]], 1)
    for row in range(len(ids)):
        assert imported.decode(done.tokens_of(row)) == ids[row, 6:].tolist()


@pytest.mark.parametrize("case", BACK)
def test_a_folder_goes_there_and_back(case, tmp_path):
    """Theirs -> ours -> our file -> a folder of theirs -> transformers: the same logits."""
    transformers = pytest.importorskip("transformers")
    theirs, ids = foreign(case), tokens()
    theirs.save_pretrained(tmp_path / "theirs")
    from_transformers(tmp_path / "theirs").save(tmp_path / "ours")
    again = Imported.load(tmp_path / "ours")
    assert again.foreign_V == from_transformers(theirs).foreign_V
    to_transformers(again, tmp_path / "back")
    back, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(back) is type(theirs)
    with torch.no_grad():
        torch.testing.assert_close(back.eval()(ids).logits, theirs(ids).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "options", "word"),
    [
        ("mamba", {"hidden_act": "gelu"}, "hidden_act"),
        ("mamba2", {"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon"),
        ("xlstm", {"weight_mode": "fused"}, "weight_mode"),
        ("xlstm", {"use_bias": True}, "use_bias"),
        ("recurrent-gemma", {"hidden_activation": "relu"}, "hidden_activation"),
    ],
)
def test_what_has_no_counterpart_is_named(case, options, word):
    theirs = foreign(case)
    for name, value in options.items():
        object.__setattr__(theirs.config, name, value)
    with pytest.raises(ConfigError, match=word):
        from_transformers(theirs)


def test_a_weight_that_is_missing_or_left_over_is_named():
    theirs = foreign("mamba")
    theirs.backbone.layers[0].mixer.extra = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(CheckpointError, match="extra"):
        from_transformers(theirs)
    del theirs.backbone.layers[0].mixer.extra, theirs.backbone.layers[0].mixer.A_log
    with pytest.raises(CheckpointError, match="A_log"):
        from_transformers(theirs)
