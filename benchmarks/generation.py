"""Greedy generation against transformers' generate on the same weights, and against reading the weights once.

Width 256, 4 layers, 4 heads, a vocabulary of 8192; a prompt of 16 tokens and 64 new ones, batches of 1 and 8. Neither
side stops early. The goal: at least 1.5 times the tokens a second of transformers.
"""

import logging
from collections.abc import Iterator
from functools import cache

import torch

from seqloom.decoding._base import PlainGrammar
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.interop.from_transformers import from_transformers
from seqloom.testing.benchmark import Case

SIZE, PROMPT, NEW = 8192, 16, 64
ENDLESS = Greedy.Config(grammar=PlainGrammar.Config(end=()))


def cases() -> Iterator[Case]:
    for family in ("gpt2", "llama"):
        for rows in (1, 8):
            yield case(family, rows)


def case(family: str, rows: int) -> Case:
    theirs, imported = models(family)
    model, greedy = imported.model, Greedy(ENDLESS)
    ids = torch.randint(6, SIZE, (rows, PROMPT), generator=torch.Generator().manual_seed(rows))
    ids[:, 0] = 1
    batch = prompts([imported.encode(row)[1:] for row in ids.tolist()])
    weights = [parameter.detach() for parameter in model.parameters()]

    def ours() -> list[list[int]]:
        done = greedy.decode(model, batch, limit=NEW)
        return [imported.decode(done.tokens_of(row)) for row in range(rows)]

    def generate() -> list[list[int]]:
        return theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW)[:, PROMPT:].tolist()

    def read() -> None:
        for _ in range(NEW):
            for weight in weights:
                weight.sum()

    def check() -> None:
        got, want = ours(), generate()
        assert got == want, f"the tokens differ: {got} instead of {want}"

    arms = {"seqloom": ours, "transformers": generate, "reading the weights": read}
    return Case(f"{family}, {rows} rows, {NEW} tokens each", arms, "transformers", check, goal=1 / 1.5, rounds=9)


@cache
def models(family: str) -> tuple:
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1}
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=SIZE, n_positions=512, n_embd=256, n_layer=4, n_head=4, **ends)
        theirs = transformers.GPT2LMHeadModel(config).eval()
    else:
        sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
        config = transformers.LlamaConfig(vocab_size=SIZE, num_key_value_heads=4, **sizes, **ends)
        theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.generation_config.do_sample = False
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    return theirs, from_transformers(theirs)
