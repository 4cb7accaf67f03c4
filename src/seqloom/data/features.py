"""Numbers that go into a network beside its symbols, or instead of them: scaled by what the training part says alone.

    number    (x - mean) / std, and 1 where it is known (0, 0 where it is missing)
    level     one column a value of a column of words, at most ``MOST`` of the most frequent; a new word is 0 in all
    gap       log(1 + seconds since the event before), scaled likewise
    elapsed   seconds since the first event of the sequence, like any number; only where it is named
    value     a number that is predicted, too: the first columns of a time series

    one row = values, known, inputs         ``known`` is 1 on every row of data: 0 before the first one, and where
                                            inputs are withheld

Shapes: L steps, C columns, P predicted columns.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from seqloom.core.component import Value
from seqloom.core.errors import DataError
from seqloom.data._build import NAT
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences

ALL, GAP, ELAPSED, MOST = "all", "gap", "elapsed", 32
LEAST = 1e-12
"""Standard deviation below which a column is constant: it is shifted and not scaled."""


@dataclass(frozen=True, kw_only=True)
class Channel(Value):
    """One source of numbers and how it is scaled."""

    name: str
    """The column, ``gap`` or ``elapsed``."""
    kind: Literal["value", "number", "level", "gap"]
    """How it becomes columns."""
    mean: float = 0.0
    """Mean over the training part (of the logarithm, for a gap)."""
    scale: float = 1.0
    """Its standard deviation there."""
    levels: tuple[str, ...] = ()
    """Words that have a column, the most frequent first."""

    @property
    def width(self) -> int:
        """Columns that it takes."""
        return len(self.levels) if self.kind == "level" else 2 if self.kind == "number" else 1


@dataclass(frozen=True, kw_only=True)
class Features(Value):
    """Channels in the order of their columns."""

    channels: tuple[Channel, ...] = ()
    """Values first."""

    @classmethod
    def fit(cls, train: Sequences, inputs: str | None = None) -> Self:
        """Learn scales and words from the training part.

        Args:
            train: Its sequences.
            inputs: Names with commas between: channels, ``gap``, ``elapsed``, or ``all`` channels and ``gap``; None =
                no inputs.

        Raises:
            DataError: A name is no column, or there is no time to take a gap of.
        """
        values = [_value(train, at, name) for at, name in enumerate(value_names(train))]
        return cls(channels=(*values, *(_input(train, name) for name in wanted(train, inputs))))

    @property
    def predicted(self) -> int:
        """Columns that are predicted: the values of a time series, 0 for symbols."""
        return sum(channel.kind == "value" for channel in self.channels)

    @property
    def width(self) -> int:
        """Columns in all."""
        return sum(channel.width for channel in self.channels) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the predicted columns."""
        return tuple(channel.name for channel in self.channels if channel.kind == "value")

    def of(self, sequences: Sequences) -> Ragged:
        """Columns of every step, float32 (L, C); a column that is absent counts as missing."""
        lengths = sequences.lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        out_LC = np.zeros((int(offsets[-1]), self.width), np.float32)
        p = self.predicted
        out_LC[:, p] = 1
        if p:
            values_LP = two_columns(sequences.values().flat)
            if values_LP.shape[1] != p and len(out_LC):
                problem = (
                    f"has {values_LP.shape[1]} channels, and the model was trained on {p}: {', '.join(self.names)}"
                )
                raise DataError(problem, file=sequences.source, mend="Choose the same columns with --value.")
            mean_P, scale_P = self.moments
            out_LC[:, :p] = (values_LP - mean_P) / scale_P if len(out_LC) else 0
        at = p + 1
        for channel in self.channels[p:]:
            out_LC[:, at : at + channel.width] = _columns(channel, sequences)
            at += channel.width
        return Ragged(out_LC, offsets)

    def missing(self, sequences: Sequences) -> tuple[str, ...]:
        """Inputs that these data lack."""
        held = {*sequences.channels, *((GAP, ELAPSED) if sequences.times() is not None else ())}
        return tuple(channel.name for channel in self.channels if channel.kind != "value" and channel.name not in held)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale of the predicted columns, float64 (P,)."""
        own = self.channels[: self.predicted]
        return np.array([c.mean for c in own]), np.array([c.scale for c in own])


def wanted(sequences: Sequences, inputs: str | None) -> list[str]:
    """The names that ``inputs`` means. DataError where one is no channel of these sequences."""
    timed = sequences.times() is not None
    names = list(dict.fromkeys(name.strip() for name in (inputs or "").split(",") if name.strip()))
    if names == [ALL]:
        return [*sequences.channels, *([GAP] if timed and GAP not in sequences.channels else [])]
    for name in names:
        if name not in sequences.channels and not (name in (GAP, ELAPSED) and timed):
            known = ", ".join([*sequences.channels, *((GAP, ELAPSED) if timed else ())]) or "none"
            problem = f"there is no input {name!r} (asked for by --inputs)"
            raise DataError(problem, file=sequences.source, mend=f"The inputs are {known}.")
    return names


def value_names(sequences: Sequences) -> tuple[str, ...]:
    """Names of the channels of real-valued sequences; none of symbols."""
    if sequences.kind != "values":
        return ()
    count = two_columns(sequences.values().values).shape[1]
    given = sequences.value_names
    return given if len(given) == count else ("value",) if count == 1 else tuple(f"value{at}" for at in range(count))


def two_columns(values: np.ndarray) -> np.ndarray:
    """(L,) or (L, C) as (L, C)."""
    return values[:, None] if values.ndim == 1 else values


def _value(train: Sequences, at: int, name: str) -> Channel:
    return Channel(name=name, kind="value", **_scale(two_columns(train.values().flat)[:, at]))


def _input(train: Sequences, name: str) -> Channel:
    if name == GAP and GAP not in train.channels:
        return Channel(name=name, kind="gap", **_scale(_gaps(train)))
    if name == ELAPSED and ELAPSED not in train.channels:
        return Channel(name=name, kind="number", **_scale(_elapsed(train)))
    words = train.channel_symbols(name)
    if words is None:
        return Channel(name=name, kind="number", **_scale(train.channel(name).flat))
    counts = Counter(
        dict(zip(words, np.bincount(train.channel(name).flat, minlength=len(words)).tolist(), strict=True))
    )
    often = sorted((word for word, count in counts.items() if count), key=lambda word: (-counts[word], word))
    return Channel(name=name, kind="level", levels=tuple(often[:MOST]))


def _scale(numbers: np.ndarray) -> dict[str, Any]:
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return {"mean": 0.0, "scale": 1.0}
    spread = float(known.std())
    return {
        "mean": float(known.mean()),
        "scale": spread if spread > LEAST * max(1.0, abs(float(known.mean()))) else 1.0,
    }


def _gaps(sequences: Sequences) -> np.ndarray:
    """log(1 + time since the event before); 0 for the first of a sequence. Numbers without a unit stay as they are."""
    times = sequences.times()
    if times is None or not np.array_equal(times.lengths, sequences.lengths):
        return np.full(int(sequences.lengths.sum()), np.nan)
    unit = 1e6 if times.values.dtype == np.int64 else 1.0
    gap_L = np.diff(times.flat.astype(np.float64), prepend=0.0) / unit
    gap_L[(times.offsets[:-1] - times.offsets[0])[times.lengths > 0]] = 0.0
    return np.log1p(np.maximum(gap_L, 0.0))


def _elapsed(sequences: Sequences) -> np.ndarray:
    """Time since the first event of the sequence, NaN where one of both is missing."""
    times = sequences.times()
    if times is None or not np.array_equal(times.lengths, sequences.lengths):
        return np.full(int(sequences.lengths.sum()), np.nan)
    stamped, flat = times.values.dtype == np.int64, times.flat.astype(np.float64)
    if stamped:
        flat = np.where(times.flat == NAT, np.nan, flat / 1e6)
    first = (times.offsets[:-1] - times.offsets[0])[times.lengths > 0]
    return flat - np.repeat(flat[first], times.lengths[times.lengths > 0])


def _columns(channel: Channel, sequences: Sequences) -> np.ndarray:
    """The columns of one input (L, width); zeros where the data lack it."""
    steps = int(sequences.lengths.sum())
    if channel.kind == "gap":
        gap_L = _gaps(sequences)
        return np.where(np.isfinite(gap_L), (gap_L - channel.mean) / channel.scale, 0.0)[:, None]
    if channel.name == ELAPSED and ELAPSED not in sequences.channels:
        return _known(_elapsed(sequences), channel)
    if channel.name not in sequences.channels:
        return np.zeros((steps, channel.width), np.float32)
    words = sequences.channel_symbols(channel.name)
    flat = sequences.channel(channel.name).flat
    if channel.kind == "level":
        known: dict[Any, int] = {word: at for at, word in enumerate(channel.levels)}
        if words is None:  # new data in which every word looks like a number
            words, flat = np.unique(flat, return_inverse=True)
            known = {float(word): at for word, at in reversed(known.items()) if _number(word) is not None}
        at_L = np.array([known.get(word, -1) for word in words], np.int64)[flat] if len(words) else flat
        return (at_L[:, None] == np.arange(channel.width)).astype(np.float32)
    return _known(flat if words is None else _as_numbers(words)[flat], channel)


def _known(numbers: np.ndarray, channel: Channel) -> np.ndarray:
    """Scaled numbers beside whether they are known (L, 2)."""
    known_L = np.isfinite(numbers)
    return np.stack([np.where(known_L, (numbers - channel.mean) / channel.scale, 0.0), known_L], 1)


def _as_numbers(words: list[str]) -> np.ndarray:
    """Words where training had numbers: what is no number is missing."""
    return np.array([_number(word) for word in words], np.float64)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
