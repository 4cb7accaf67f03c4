"""How one tensor of ours and tensors of transformers stand for each other, read in both directions.

A family lists its links once; importing and exporting both follow them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seqloom.core.errors import CheckpointError, ConfigError

Options = Mapping[str, Any]
Form = Literal["same", "turned", "taps", "past_one", "swapped", "flat"]


@dataclass(frozen=True)
class Link:
    """One tensor of ours, and the foreign ones that it is made of: several lie behind one another."""

    ours: str
    theirs: tuple[str, ...]
    form: Form = "same"
    """turned: (in, out) there; taps: (C, 1, K) there; past_one: less one there; swapped: last axes; flat: (H, K)."""
    sizes: tuple[int, ...] = ()
    """Rows of each of several foreign tensors."""
    scale: float = 1.0
    """Ours is theirs times this."""


Shape = tuple[int, ...]
FORMS: dict[Form, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None]] = {
    "same": (lambda x: x, lambda x: x),
    "turned": (lambda x: x.t(), lambda x: x.t()),
    "taps": (lambda x: x.squeeze(1), lambda x: x.unsqueeze(1)),
    "past_one": (lambda x: x + 1, lambda x: x - 1),
    "swapped": (lambda x: x.mT, lambda x: x.mT),
    "flat": (lambda x: x.flatten(), None),
}
"""Theirs -> ours and ours -> theirs; None where a shape would have to be guessed."""


def imported(links: Iterable[Link], weights: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Our state dict for a foreign one. Raises CheckpointError for a weight that is missing or left over."""
    there, used, ours = {_bare(name, prefixes): value for name, value in weights.items()}, set(), {}
    for link in links:
        absent = next((name for name in link.theirs if name not in there), None)
        if absent is not None:
            raise CheckpointError(f"the model lacks the weight {absent!r}: is it a whole causal language model?")
        used.update(link.theirs)
        tensors = [FORMS[link.form][0](there[name]) for name in link.theirs]
        value = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        ours[link.ours] = value if link.scale == 1.0 else value * link.scale
    rest = sorted(name for name in set(there) - used if not name.endswith(BUFFERS) and name != "lm_head.weight")
    if rest:
        raise CheckpointError(f"the model has weights that its config does not explain: {', '.join(rest[:5])}")
    return ours


BUFFERS = ("attn.bias", "attn.masked_bias", "rotary_emb.inv_freq")
"""What some versions save besides the weights."""


def exported(links: Iterable[Link], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Foreign tensors, without a prefix, for our state dict."""
    return dict(pair for link in links for pair in _parts(link, ours[link.ours]))


def _parts(link: Link, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    back = FORMS[link.form][1]
    if back is None or link.scale != 1.0:
        raise ConfigError(f"{link.ours} has no way back to {link.theirs[0]}")
    pieces = value.split(list(link.sizes)) if len(link.theirs) > 1 else (value,)
    for name, piece in zip(link.theirs, pieces, strict=True):
        yield name, back(piece).contiguous()


def _bare(name: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


def demand(options: Options, **allowed: tuple[Any, ...]) -> None:
    """Raise ConfigError naming an option whose value has no counterpart here."""
    for name, values in allowed.items():
        if options.get(name) not in values:
            raise ConfigError(f"{name} = {options.get(name)!r} has no counterpart here; it must be one of {values}")


def biased(stem: str, on: bool) -> tuple[str, ...]:
    """Names of a map's parameters."""
    return (f"{stem}.weight", f"{stem}.bias") if on else (f"{stem}.weight",)
