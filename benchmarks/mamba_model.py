"""A Mamba language model against transformers' on the same weights: a training step, a prefill, generated tokens.

Training: width 256, two layers, one row of 1,024 tokens, beside an attention model of the same size. transformers has
no compiled path on a processor: its loop over time is what anybody without a GPU runs.
Generation: width 256, four layers, a vocabulary of 8192; 32 new tokens after 16, in batches of 1 and 8.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from seqloom.core.sizes import Sizes
from seqloom.decoding._base import PlainGrammar
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.interop.from_transformers import from_transformers
from seqloom.mixers.attention.attention import Attention
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM
from seqloom.testing.benchmark import Case

SIZE, PROMPT, NEW = 8192, 16, 32
ENDLESS = Greedy.Config(grammar=PlainGrammar.Config(end=()))


def cases() -> Iterator[Case]:
    yield training(1024)
    yield against_attention(1024)
    yield prefill(512)
    for rows in (1, 8):
        yield generation(rows)


@cache
def models(layers: int, width: int = 256, size: int = SIZE) -> tuple[Any, Any]:
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1}
    config = transformers.MambaConfig(vocab_size=size, hidden_size=width, num_hidden_layers=layers, **ends)
    theirs = transformers.MambaForCausalLM(config).eval()
    theirs.generation_config.do_sample = False
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    return theirs, from_transformers(theirs)


def training(length: int) -> Case:
    theirs, imported = models(2, size=256)
    model = imported.model.train()
    ids_1T = torch.randint(6, 250, (1, length + 1), generator=torch.Generator().manual_seed(1))
    order_V = torch.tensor([imported.foreign_V.index(foreign) for foreign in range(256)])  # our id of each of theirs

    def logits(x_1T: torch.Tensor) -> torch.Tensor:
        """Of the foreign ids, in their order."""
        return model(order_V[x_1T])[0].logits[..., order_V]

    def ours() -> float:
        return step(model, logits, ids_1T)

    def check() -> None:
        model.zero_grad()
        theirs.zero_grad()
        short = ids_1T[:, :65]
        got, want = step(model, logits, short), step(theirs, lambda x: theirs(x).logits, short)
        assert abs(got - want) < 1e-5 * abs(want), (got, want)

    arms = {"seqloom": ours, "transformers": lambda: step(theirs, lambda x: theirs(x).logits, ids_1T)}
    return Case(f"training step, 2 layers, {length} tokens", arms, "transformers", check, goal=0.01, rounds=1)


def against_attention(length: int) -> Case:
    _, imported = models(2, size=256)
    model = imported.model.train()
    backbone = Backbone.Config(width=256, layers=2, mixers=(Attention.Config(),))
    attention = CausalLM(Sizes(vocabulary=256), CausalLM.Config(backbone=backbone))
    ids_1T = torch.randint(6, 250, (1, length + 1), generator=torch.Generator().manual_seed(1))
    arms = {
        "mamba": lambda: step(model, lambda x: model(x)[0].logits, ids_1T),
        "attention and MLP": lambda: step(attention, lambda x: attention(x)[0].logits, ids_1T),
    }
    sizes = [sum(value.numel() for value in each.parameters()) for each in (model, attention)]
    name = f"training step, {length} tokens, {sizes[0]:,} parameters against {sizes[1]:,}"
    return Case(name, arms, "attention and MLP", lambda: None, goal=1.5, rounds=7)


def step(model: torch.nn.Module, logits: Callable[[torch.Tensor], torch.Tensor], ids_1T: torch.Tensor) -> float:
    """Forwards and backwards; no optimiser."""
    model.zero_grad()
    loss = cross_entropy(logits(ids_1T[:, :-1])[0], ids_1T[0, 1:])
    loss.backward()
    return float(loss.detach())


def prefill(length: int) -> Case:
    theirs, imported = models(4)
    model = imported.model.eval()
    ids_1T = torch.randint(6, SIZE, (1, length), generator=torch.Generator().manual_seed(1))
    own_1T = torch.tensor([imported.encode(ids_1T[0].tolist())])

    @torch.no_grad()
    def ours() -> torch.Tensor:
        return model.step(own_1T, model.initial_state(1))[0]

    @torch.no_grad()
    def other() -> torch.Tensor:
        return theirs(ids_1T, use_cache=True).logits

    def check() -> None:
        order = [imported.foreign_V.index(foreign) for foreign in range(6, SIZE)]
        torch.testing.assert_close(ours()[:, -1, order], other()[:, -1, 6:], rtol=1e-3, atol=1e-3)

    arms = {"seqloom": ours, "transformers": other}
    return Case(f"prefill of {length} tokens", arms, "transformers", check, goal=0.1, rounds=5)


def generation(rows: int) -> Case:
    theirs, imported = models(4)
    model, greedy = imported.model.eval(), Greedy(ENDLESS)
    ids = torch.randint(6, SIZE, (rows, PROMPT), generator=torch.Generator().manual_seed(rows))
    ids[:, 0] = 1
    batch = prompts([imported.encode(row)[1:] for row in ids.tolist()])

    def ours() -> list[list[int]]:
        done = greedy.decode(model, batch, limit=NEW)
        return [imported.decode(done.tokens_of(row)) for row in range(rows)]

    def generate() -> list[list[int]]:
        return theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW)[:, PROMPT:].tolist()

    def check() -> None:
        got, want = ours(), generate()
        assert got == want, f"the tokens differ: {got} instead of {want}"

    arms = {"seqloom": ours, "transformers": generate}
    return Case(f"{rows} rows, {NEW} tokens each", arms, "transformers", check, goal=1 / 3, rounds=5)
