"""Write sequences with a model and the decoders."""

import torch

from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Stepper
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.decoding._base import Decoder
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.decoding.sample import Sample

ROWS = 64
"""Sequences that are written at once."""


def generate(
    stepper: Stepper,
    rows: Ragged,
    *,
    limit: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
) -> tuple[list[list[int]], list[bool]]:
    """Ids of each prompt with its continuation, and whether the model ended it."""
    if temperature < 0:
        raise ConfigError(f"temperature must be 0 (the likeliest symbol) or above, not {temperature}")
    if temperature == 0:
        decoder: Decoder = Greedy(Greedy.Config())
    else:
        decoder = Sample(Sample.Config(temperature=temperature, top_k=top_k, top_p=top_p))
    written: list[list[int]] = []
    ended: list[bool] = []
    device = getattr(getattr(stepper, "model", None), "device", "cpu")
    for at in range(0, len(rows), ROWS):
        given = [row.tolist() for row in rows[at : at + ROWS]]
        batch = prompts(given, keys=range(at, at + len(given))).to(torch.device(device))
        found = decoder.decode(stepper, batch, limit=limit, seed=seed)
        chosen = decoder.visible(found)
        written += [prompt + new for prompt, new in zip(given, chosen, strict=True)]
        ended += [SPECIALS.eos in found.tokens_of(row)[-1:] for row in range(len(given))]
    return written, ended
