"""Stretches of test sequences with what every step cost, the most surprising first.

Shapes: N test sequences, L steps.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from seqloom.app.judge import Judgement
from seqloom.core.errors import harmless
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    from seqloom.app.fitted import Fitted

SHOWN, STRETCH = 5, 60
LEVELS = 8
LEAST, MOST = 1.0, 12.0
"""Bits from which on a step has the last shade: those of the most surprising one, but within these."""
LONGEST = 24
"""Letters of a symbol that are shown."""
BLANKS = str.maketrans({" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True)
class Step:
    """One symbol or value and how surprising it was."""

    text: str
    bits: float
    level: int = 0
    """Shade."""


@dataclass(frozen=True)
class Strip:
    """A stretch of one test sequence."""

    id: str
    bits: float
    """Of each prediction in it, or of the class."""
    about: str = ""
    """Which part of the sequence it is, or what it was taken for."""
    text: str = ""
    """The sequence, where its steps have no cost of their own."""
    steps: list[Step] = field(default_factory=list)


def worst_first(part: Sequences, judged: Judgement) -> Sequences:
    """The test sequences with the most bits a step; all of them where pieces of few were judged."""
    if len(judged.bits_N) != len(part):
        return part
    each_N = judged.bits_N / np.maximum(judged.count_N, 1)
    return part.select(np.argsort(-each_N, kind="stable")[:SHOWN])


def strips_of(fitted: "Fitted", chosen: Sequences, most: int) -> list[Strip]:
    """The dearest stretches: one of each sequence, or of a few long ones the dearest wherever they are."""
    made: list[list[Strip]] = []
    room = max(most // max(len(chosen), 1), STRETCH)
    for number in range(len(chosen)):
        one = chosen.select([number])
        made.append(_stretches(fitted, one.cut([0], np.minimum(one.lengths, room)) if one.lengths[0] > room else one))
    if len(chosen) >= SHOWN:
        made = [own[:1] for own in made]
    every = [strip for own in made for strip in own]
    return _shaded(sorted(every, key=lambda strip: -strip.bits)[:SHOWN])


def _shaded(strips: list[Strip]) -> list[Strip]:
    """One scale for all, so that shades can be compared."""
    hottest = float(np.clip(max((step.bits for strip in strips for step in strip.steps), default=0), LEAST, MOST))
    shades = LEVELS / hottest
    return [
        replace(own, steps=[replace(s, level=int(np.clip(s.bits * shades, 0, LEVELS - 1))) for s in own.steps])
        for own in strips
    ]


def _stretches(fitted: "Fitted", one: Sequences) -> list[Strip]:
    """All stretches of a sequence, the dearest first."""
    frame = fitted.surprise(one)
    bits_L, position_L = frame["bits"].to_numpy(), frame["position"].to_numpy()
    texts = _values(one, fitted, position_L) if fitted.predicts_values else frame["symbol"].to_list()
    strips = []
    for at_L in np.array_split(np.arange(len(bits_L)), max(1, len(bits_L) // STRETCH)):
        if not len(at_L):
            continue
        whole = len(at_L) == len(bits_L)
        where = "" if whole else f"positions {position_L[at_L[0]]:,} to {position_L[at_L[-1]]:,}"
        steps = [Step(visible(texts[at]), float(bits_L[at])) for at in at_L.tolist()]
        strips.append(Strip(id=one.ids[0], bits=float(bits_L[at_L].mean()), about=where, steps=steps))
    return sorted(strips, key=lambda strip: -strip.bits)


def _values(one: Sequences, fitted: "Fitted", position_L: np.ndarray) -> list[str]:
    """The numbers that came, of every predicted channel in turn."""
    values = np.asarray(one.sequence(0), np.float64)
    channels = fitted.engine.blueprint.sizes.values
    channel_L = np.arange(len(position_L)) % channels
    own_L = values[position_L - 1] if values.ndim == 1 else values[position_L - 1, channel_L]
    return [f"{value:.4g}" for value in own_L.tolist()]


def visible(text: str) -> str:
    """Blanks can be seen, and nothing is longer than a word."""
    plain = harmless(text.translate(BLANKS))
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"
