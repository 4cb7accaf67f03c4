"""Whether the numbers of new data lie where those of the training lay, and how many symbols it never saw.

    P(a of G new units reach beyond all R known ones) = prod_i<a (G - i) / (G + R - i)
    P(one unit reaches t) = (t / q)^(-1 / tail) / 4,  q the third quartile of what units reach

The first holds for whatever the numbers of a unit have in common, as long as units of one source can change places; the
second is for few units that reach far. Pieces of one long series cannot change places: they must be far outside.
Shapes: L steps, C columns, U units (sequences, or pieces of one), S sides (above, below).
Source: Hill, "A simple general approach to inference about the tail of a distribution", 1975.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from seqloom.app import _shares
from seqloom.core.component import Value
from seqloom.data.columns import Columns
from seqloom.data.features import Features
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences

LEAST = 50
"""Least symbols and least held-out sequences of a band that anything is measured with."""
UNLIKELY = 1e-3
"""What must be rarer than this by chance."""
MORE, PLAIN = 0.01, 0.2
"""Share of unknown symbols beyond the usual that is worth a word, and where the usual share is hardly known."""
FAR = 2.0
"""Ranges of the training that numbers of one long series must lie outside of it: a random walk goes on for one."""
TINY = 1e-3
"""Scaled units that are never far: beyond lies rounding."""


@dataclass(frozen=True, kw_only=True)
class Unseen(Value):
    """How many symbols, or steps, of a part were new to the training."""

    found: int = 0
    """How many were."""
    of: int = 0
    """Among how many."""
    clumping: float = 1.0
    """How many times more their share varies between units than with independent symbols."""
    rare: float = 0.0
    """Share of the training part that it holds once: about what new data bring that is new (Good, 1953)."""

    def shares(self, new_L: np.ndarray, borders: np.ndarray) -> tuple[float, float] | None:
        """Share that is new in these data, and the usual one; None where that is hardly more, or may be chance."""
        found, of = int(new_L.sum()), len(new_L)
        if not found:
            return None
        own = _shares.clumping(_shares.sums(new_L, borders), np.diff(borders))
        clumps = max(self.clumping, own)
        usual = self.found / max(self.of, 1)
        if min(of, self.of) < LEAST:
            bar = max(usual, self.rare) + PLAIN
            by_chance, told = _shares.tail(found / clumps, of / clumps, bar), found / of >= bar
        else:
            by_chance = _shares.tail(found / clumps, (found + self.found) / clumps, of / (of + self.of))
            told = found / of >= usual + MORE
        return (found / of, usual) if told and by_chance <= UNLIKELY else None

    def beside(self, usual: float) -> str:
        """The usual share in brackets, where enough was held out to know it."""
        return f" ({percent(usual)} in its held-out part)" if self.of >= LEAST else ""


@dataclass(frozen=True, kw_only=True)
class Reach(Value):
    """Where the numbers of one channel lay, in scaled units, in the training and the held-out part."""

    name: str
    """The channel."""
    kind: Literal["value", "number", "level", "gap"]
    """How it becomes columns."""
    column: int
    """The first of its columns."""
    width: int = 1
    """How many they are."""
    mean: float = 0.0
    """What is added to a scaled number, times ``scale``, for the data's own."""
    scale: float = 1.0
    """Data's own units a scaled unit."""
    units: int = 0
    """Units that had numbers; 0 = nothing can be told of them."""
    steps: int = 0
    """Numbers that they had."""
    ends: tuple[float, float] = (0.0, 0.0)
    """The lowest and the highest."""
    middle: float = 0.0
    """The median."""
    sides: tuple[tuple[float, float], ...] = ()
    """Above the median and below: the third quartile of how far units reach, and the tail beyond it."""
    unseen: Unseen = Unseen()
    """Steps of the held-out part (where that is small: of training) without a number, or a word, that is known."""

    def sentences(self, columns: Ragged, piece: int, channels: int) -> list[str]:
        """What is unlike, among so many channels."""
        numbers_L, known_L = _split(self, columns.flat)
        borders = _shares.units(columns.offsets, piece)
        said = []
        if self.units and known_L.any() and (far := self._outside(numbers_L, known_L, borders, piece, channels)):
            said.append(far)
        if shares := self.unseen.shares(~known_L, borders):
            what = "word that training saw" if self.kind == "level" else "number"
            said.append(
                f"{percent(shares[0])} of the steps hold no {what} in {self.name!r}{self.unseen.beside(shares[1])}"
            )
        return said

    def _outside(
        self, x_L: np.ndarray, known_L: np.ndarray, borders: np.ndarray, piece: int, channels: int
    ) -> str | None:
        low, high = self.ends
        above_L, below_L = known_L & (x_L > high), known_L & (x_L < low)
        reach_SU = _reached(x_L, known_L, borders, self.middle)
        more = int(known_L.sum()) * self.units / self.steps
        given = max(reach_SU.shape[1], math.ceil(more))  # a sequence longer than those known has more chances
        found = False
        for reach_U, end, (quartile, tail) in zip(
            reach_SU, (high - self.middle, self.middle - low), self.sides, strict=True
        ):
            top, above = float(reach_U.max()), int((reach_U > end).sum())
            if piece:
                room = FAR * max(high - low, TINY) * math.sqrt(max(1.0, known_L.sum() / self.steps))
                found |= top > end + room
            elif top > end + TINY:
                i = np.arange(above)
                order = float(np.log((given - i) / (given + self.units - i)).sum())
                beyond = given / 4 * (top / max(quartile, TINY)) ** (-1 / max(tail, 1e-2))
                found |= order <= math.log(UNLIKELY / (2 * channels)) or beyond <= UNLIKELY / (2 * channels)
        if not found:
            return None
        outside_L = above_L | below_L
        count, of = int(outside_L.sum()), int(known_L.sum())
        numbers = self._own(np.array([x_L[outside_L].min(), x_L[outside_L].max(), low, high]))
        span = " to ".join(f"{number:.4g}" for number in dict.fromkeys(numbers[:2].tolist()))
        return (
            f"{count:,} of {of:,} numbers of {self.name!r} lie outside what training saw: {span}, there "
            f"{numbers[2]:.4g} to {numbers[3]:.4g}"
        )

    def _own(self, scaled: np.ndarray) -> np.ndarray:
        own = scaled.astype(np.float64) * self.scale + self.mean
        return np.expm1(np.minimum(own, 700)) if self.kind == "gap" else own


def reaches(features: Features | None, train: Ragged | None, held_out: Ragged | None) -> tuple[Reach, ...]:
    """Where every channel lay in the training part and in the held-out one, whose columns are given."""
    if features is None or train is None or held_out is None:
        return ()
    piece = _shares.piece_of(train.lengths)
    found, at = [], 0
    for number, channel in enumerate(features.channels):
        if number == features.predicted:
            at += 1  # the column that says whether a step is known
        common: dict[str, Any] = {"name": channel.name, "kind": channel.kind, "column": at, "width": channel.width}
        found.append(_reach(Reach(**common, mean=channel.mean, scale=channel.scale), train, held_out, piece))
        at += channel.width
    return tuple(found)


def unlike(reaches: Sequence[Reach], columns: Ragged, piece: int) -> list[str]:
    """What sets the columns of data apart, in at most two sentences a channel."""
    return [sentence for reach in reaches for sentence in reach.sentences(columns, piece, len(reaches))]


def lacking(features: Features | None, columns: Columns | None, asked: Sequences) -> list[str]:
    """What these data do not have and those of the training had."""
    said = []
    if features is not None and (names := features.missing(asked)):
        said.append(f"these data lack {', '.join(names)}, which the model reads beside each symbol")
    if columns is not None and columns.time and asked.times() is None:
        said.append("these data have no time: events are taken in the order in which they stand")
    return said


def percent(share: float) -> str:
    """Two digits that count: 31 %, 2.1 %, 0.031 %."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def hill(reach_N: np.ndarray, quartile: float) -> float:
    """Hill's estimate of how heavy the tail beyond a quartile is: 0 where all are equal."""
    above = reach_N[reach_N > quartile]
    return float(np.log(above / quartile).mean()) if len(above) else 0.0


def _reach(empty: Reach, train: Ragged, held_out: Ragged, piece: int) -> Reach:
    numbers, known, reference = [], [], Unseen()
    for part in (train, held_out):
        own_L, known_L = _split(empty, part.flat)
        borders = _shares.units(part.offsets, piece)
        if part is train or part.total >= LEAST:
            clumping = _shares.clumping(_shares.sums(~known_L, borders), np.diff(borders))
            reference = Unseen(found=int((~known_L).sum()), of=part.total, clumping=round(clumping, 4))
        numbers.append(own_L)
        known.append(known_L)
    x_L, known_L = np.concatenate(numbers), np.concatenate(known)
    common: dict[str, Any] = {field: getattr(empty, field) for field in ("name", "kind", "column", "width")}
    common |= {"mean": empty.mean, "scale": empty.scale, "unseen": reference}
    if empty.kind == "level" or not known_L.any():
        return Reach(**common)
    borders = _shares.units(train.offsets, piece)
    borders = np.append(borders, borders[-1] + _shares.units(held_out.offsets, piece)[1:])
    middle = float(np.median(x_L[known_L]))
    reach_SU = _reached(x_L, known_L, borders, middle)
    sides = []
    for reach_U in reach_SU:
        quartile = max(float(np.quantile(reach_U, 0.75)), TINY)
        few = 1 + 2 / math.sqrt(max((reach_U > quartile).sum(), 1))  # so much may luck have made it lighter
        sides.append((round(quartile, 6), round(hill(reach_U, quartile) * few, 4)))
    return Reach(
        **common,
        units=reach_SU.shape[1],
        steps=int(known_L.sum()),
        ends=(float(x_L[known_L].min()), float(x_L[known_L].max())),
        middle=middle,
        sides=tuple(sides),
    )


def _split(reach: Reach, columns_LC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a channel (L,), and where they, or a word that training saw, are known (L,)."""
    own = columns_LC[:, reach.column : reach.column + reach.width]
    if reach.kind == "level":
        return np.zeros(len(own), np.float32), np.not_equal(own, 0).sum(1) > 0
    return own[:, 0], own[:, 1] > 0 if reach.kind == "number" else np.ones(len(own), bool)


def _reached(x_L: np.ndarray, known_L: np.ndarray, borders: np.ndarray, middle: float) -> np.ndarray:
    """How far above the middle and below it each unit with numbers reaches (S, U), at least 0."""
    unit_L = np.repeat(np.arange(len(borders) - 1), np.diff(borders))[known_L]
    starts = np.flatnonzero(np.diff(unit_L, prepend=-1))
    away_SL = np.stack([x_L[known_L] - np.float64(middle), np.float64(middle) - x_L[known_L]])
    return np.maximum(np.maximum.reduceat(away_SL, starts, axis=1), 0.0)
