"""The number that is told after every event: the time that remains, or the value at the end.

    remaining   y_t = time of the last event - time of event t      in seconds, minutes, hours or days, by their size
    a column    y_t = the last number that the sequence has in it   the same after every event; it is no input
    the label   y_t = the label of the sequence, where labels are numbers

    z = (y - mean) / scale,  or  (log(1 + y / bend) - mean) / scale  where that leans less to one side

The logarithm goes on as a straight line below 0, where later data may lie though the training part does not.

Everything is learnt from the training part alone. Numbers with a long tail (most waiting times) take the logarithm.
Shapes: N sequences, L events of all.
"""

import itertools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from seqloom.core.component import Value
from seqloom.core.errors import DataError
from seqloom.data._build import NAT
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences

REMAINING, LABEL = "remaining", "<label>"
UNITS = {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
"""Seconds of each; the first of which the middle time is at least ``ENOUGH`` is taken."""
ENOUGH = 2.0
PLAIN = "units of the time column"
"""Of times that are numbers."""
MOST = 1e100
"""Beyond, squared errors would be infinite."""
LEAST = 1e-12
"""Standard deviation below which the numbers are constant: they are shifted and not scaled."""


@dataclass(frozen=True, kw_only=True)
class Target(Value):
    """What is predicted, its unit, and how it is scaled."""

    name: str = REMAINING
    """``remaining``, a column, or ``<label>``."""
    unit: str = ""
    """As it is told to people: of time, or the name of the column."""
    per: float = 1.0
    """Seconds of one unit."""
    bend: float = 0.0
    """Where the logarithm bends; 0 = no logarithm is taken."""
    mean: float = 0.0
    """Mean over all events of the training part, of the logarithm where it is taken."""
    scale: float = 1.0
    """Its standard deviation there."""
    least: float | None = None
    """Nothing lies below: 0 for a time."""

    @classmethod
    def fit(cls, train: Sequences, name: str, *, column: str = "label") -> Self:
        """Learn unit and scale from the training part.

        Args:
            train: Its sequences.
            name: ``remaining``, a column of numbers, or ``<label>``.
            column: What the label is called.

        Raises:
            DataError: There are no times, no such column, or something in it is no number.
        """
        timed = name == REMAINING
        raw = cls(name=name).of(train).flat
        raw = raw[np.isfinite(raw)]
        unit = (PLAIN if _plain_times(train) else _unit(raw)) if timed else column if name == LABEL else name
        per = UNITS.get(unit, 1.0) if timed else 1.0
        y = raw / per
        bend = _bend(y)
        z = np.log1p(y / bend) if bend else y
        spread = float(z.std()) if len(z) else 0.0
        mean = float(z.mean()) if len(z) else 0.0
        flat = spread <= LEAST * max(1.0, abs(mean))
        found: dict[str, Any] = {"unit": unit, "per": per, "bend": bend, "mean": mean, "scale": 1.0 if flat else spread}
        return cls(name=name, **found, least=0.0 if timed else None)

    def of(self, sequences: Sequences) -> Ragged:
        """The number after every event in its own unit, float64 (L,); NaN where the time of an event is missing."""
        if self.name == REMAINING:
            raw = _remaining(sequences)
            return Ragged(raw.values / self.per, raw.offsets)
        number_N = _labels(sequences) if self.name == LABEL else _last_known(sequences, self.name)
        lengths = sequences.lengths
        return Ragged(np.repeat(number_N, lengths), np.concatenate([[0], np.cumsum(lengths)]))

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Numbers as a model learns them."""
        y = np.asarray(y, np.float64)
        if self.bend:
            y = y / self.bend
            y = np.where(y < 0, y, np.log1p(np.maximum(y, 0)))
        return (y - self.mean) / self.scale

    def own(self, z: np.ndarray) -> np.ndarray:
        """What a model says, in the number's own unit."""
        z = np.asarray(z, np.float64) * self.scale + self.mean
        y = self.bend * np.where(z < 0, z, np.expm1(np.clip(z, 0, 700))) if self.bend else z
        return y if self.least is None else np.maximum(y, self.least)


def _remaining(sequences: Sequences) -> Ragged:
    """Seconds (or units of numbers) from every event to the last one of its sequence."""
    times, lengths = sequences.times(), sequences.lengths
    if times is None or not np.array_equal(times.lengths, lengths):
        mend = "Name the column of the time with --time, or a column of numbers with --target."
        raise DataError("has no time of every event: what remains cannot be told", file=sequences.source, mend=mend)
    stamped = times.values.dtype == np.int64
    flat = times.flat.astype(np.float64)
    if stamped:
        flat = np.where(times.flat == NAT, np.nan, flat) / 1e6
    offsets = times.offsets - times.offsets[0]
    last_N = np.array([_latest(flat[begin:end]) for begin, end in itertools.pairwise(offsets.tolist())])
    return Ragged(np.repeat(last_N, lengths) - flat, offsets)


def _latest(times: np.ndarray) -> float:
    known = times[np.isfinite(times)]
    return float(known.max()) if len(known) else float("nan")


def _last_known(sequences: Sequences, name: str) -> np.ndarray:
    """The last number of a column in each sequence (N,)."""
    if name not in sequences.channels:
        numeric = [own for own in sequences.channels if sequences.channel_symbols(own) is None]
        known = ", ".join([REMAINING] * (sequences.times() is not None) + numeric) or "none"
        problem = f"there is no column of numbers {name!r} to predict (asked for by --target)"
        raise DataError(problem, file=sequences.source, mend=f"What can be predicted: {known}.")
    words, column = sequences.channel_symbols(name), sequences.channel(name)
    if words is None:
        flat = column.flat
    else:
        own_W = np.array([_number(word) for word in words], np.float64)
        _check_words(sequences, name, column, words, own_W)
        flat = own_W[column.flat] if len(words) else np.full(column.total, np.nan)
    offsets = column.offsets - column.offsets[0]
    last_N = np.full(len(sequences), np.nan)
    known_L = np.flatnonzero(np.isfinite(flat))
    sequence_L = np.searchsorted(offsets, known_L, "right") - 1
    last_N[sequence_L] = flat[known_L]  # of several the last one stays
    _check_known(sequences, last_N, repr(name))
    return last_N


def _labels(sequences: Sequences) -> np.ndarray:
    labels = sequences.labels
    if labels is None:
        mend = "Name what is predicted with --target: remaining, or a column of numbers."
        raise DataError("has no number to predict", file=sequences.source, mend=mend)
    number_N = np.array([np.nan if label is None else _number(label) for label in labels], np.float64)
    for at in np.flatnonzero(~np.isfinite(number_N)).tolist():
        if labels[at] is not None:
            mend = "Mend the row, choose another column with --target, or predict classes with --task classify."
            raise DataError("the label is no number", **_place(sequences, at), value=labels[at], mend=mend)
    _check_known(sequences, number_N, "the label")
    return number_N


def _check_known(sequences: Sequences, number_N: np.ndarray, what: str) -> None:
    """DataError where a sequence with events has no number, or one without measure."""
    large = np.flatnonzero(np.abs(number_N) > MOST)
    if len(large):
        at = int(large[0])
        problem = f"{what} of the sequence {sequences.table['id'][at].as_py()!r} that begins here is too large"
        raise DataError(problem, **_place(sequences, at), value=float(number_N[at]), mend=f"Numbers reach to {MOST:g}.")
    missing = np.flatnonzero(~np.isfinite(number_N) & (sequences.lengths > 0))
    if len(missing):
        at = int(missing[0])
        problem = f"the sequence {sequences.table['id'][at].as_py()!r} that begins here has no number in {what}"
        mend = f"Fill it in or leave the sequence out; {len(missing)} of {len(number_N)} sequences have none."
        raise DataError(problem, **_place(sequences, at), mend=mend)


def _check_words(sequences: Sequences, name: str, column: Ragged, words: list[str], number_W: np.ndarray) -> None:
    """DataError at the first word of a column that is neither a number nor blank."""
    bad_W = np.array([bool(word.strip()) for word in words], bool) & np.isnan(number_W)
    wrong = np.flatnonzero(bad_W[column.flat]) if len(words) else []
    if not len(wrong):
        return
    offsets = column.offsets - column.offsets[0]
    at = int(np.searchsorted(offsets, wrong[0], "right")) - 1
    event, id = int(wrong[0] - offsets[at]) + 1, sequences.table["id"][at].as_py()
    problem = f"{name!r} holds no number in event {event} of the sequence {id!r} that begins here"
    value = words[column.flat[wrong[0]]]
    mend = "Mend it, or choose another column with --target."
    raise DataError(problem, **_place(sequences, at), value=value, mend=mend)


def _place(sequences: Sequences, at: int) -> dict[str, Any]:
    return {"file": sequences.source, "row": int(sequences.rows[at])}


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _plain_times(sequences: Sequences) -> bool:
    times = sequences.times()
    return times is not None and times.values.dtype != np.int64


def _unit(seconds: np.ndarray) -> str:
    """The largest unit of which the middle time has enough; a last event, of which nothing remains, does not count."""
    some = seconds[seconds > 0]
    middle = float(np.median(some)) if len(some) else 0.0
    return next((name for name, size in UNITS.items() if middle >= ENOUGH * size), "seconds")


def _bend(y: np.ndarray) -> float:
    """The middle of numbers whose logarithm leans less to one side than they do themselves; else 0."""
    some = y[y > 0]
    if not len(some) or y.min() < 0:
        return 0.0
    bend = float(np.median(some))
    return bend if abs(_skewness(np.log1p(y / bend))) < abs(_skewness(y)) else 0.0


def _skewness(y: np.ndarray) -> float:
    away, spread = y - y.mean(), y.std()
    return float((away**3).mean() / spread**3) if spread > LEAST * max(1.0, abs(float(y.mean()))) else 0.0
