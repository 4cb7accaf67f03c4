"""Train, validation and test parts that do not leak, and a report on what leaks all the same.

    time        sequences by the time of their first event: the past trains, the future tests
    group       whole groups (users, patients), by first time where there is time, else at random
    random      at random, by seed
    given       a test part that the user names
    position    fewer than three sequences (a stream, a genome), or series of values that run side by side: each is cut,
                the beginning trains

A sequence lies wholly in one part, but for ``position``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from seqloom.core.errors import ConfigError, DataError
from seqloom.core.rng import generator
from seqloom.data._leakage import LeakageReport, leakage
from seqloom.data.ragged import spans
from seqloom.data.sequences import Sequences

__all__ = ["LeakageReport", "Split", "leakage", "split"]

How = Literal["auto", "time", "group", "random", "given", "position"]
FRACTIONS = (0.8, 0.1, 0.1)
_FEW = 3
_LONG = 30  # steps of a series whose last tenth is worth a test


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Which sequences train, validate and test; ``parts`` makes them."""

    train: np.ndarray
    """Numbers of the sequences."""
    valid: np.ndarray
    test: np.ndarray
    how: How
    """What was done."""
    seed: int = 0
    """Seed of what is random about it."""
    notes: tuple[str, ...] = ()
    """What was decided, in sentences."""
    cuts: np.ndarray | None = None
    """Where each sequence is cut (N, 2), for ``position``."""

    def parts(self, sequences: Sequences) -> tuple[Sequences, Sequences, Sequences]:
        """Train, validation and test sequences."""
        if self.cuts is None:
            return sequences.select(self.train), sequences.select(self.valid), sequences.select(self.test)
        zero_N, (first_N, second_N) = np.zeros(len(sequences), np.int64), self.cuts.T
        bounds = (zero_N, first_N), (first_N, second_N), (second_N, sequences.lengths)
        train, valid, test = (sequences.cut(start_N, stop_N) for start_N, stop_N in bounds)
        return train, valid, test


def split(
    sequences: Sequences,
    how: How = "auto",
    fractions: Sequence[float] = FRACTIONS,
    *,
    seed: int = 0,
    test: Any = None,
) -> Split:
    """Divide sequences.

    Args:
        sequences: All of them.
        how: One of the ways above; ``auto`` takes given, position, group, time, random: the first that applies.
        fractions: Shares of train, validation and test.
        seed: Seed of random choices.
        test: Numbers of the test sequences (or a mask); the rest is train and validation.
    """
    shares = _shares(fractions)
    if not len(sequences):
        raise DataError("there is no sequence to split", file=sequences.source)
    way = _way(sequences, how, test)
    if way == "position":
        return _by_position(sequences, shares, seed)
    if way == "given":
        return _given(sequences, shares, seed, test)
    order, sizes, note = _units(sequences, way, seed)
    train, valid, held = (np.sort(part) for part in _divide(order, sizes, shares))
    return Split(train=train, valid=valid, test=held, how=way, seed=seed, notes=(note,))


def _way(sequences: Sequences, how: How, test: Any) -> How:
    if how not in ("auto", "time", "group", "random", "given", "position"):
        raise ConfigError(f"no split is called {how!r}; there are time, group, random, given, position")
    if how == "given" and test is None:
        raise ConfigError("a given split needs the test part: --test FILE, or test=indices")
    if how in ("auto", "given") and test is not None:
        return "given"
    if how == "time" and sequences.start_times is None:
        raise ConfigError("there is no time to split by: name its column with --time, or split at random")
    if how == "group" and sequences.groups is None:
        raise ConfigError("there is no group to split by: name its column with --group")
    if how != "auto":
        return how
    if len(sequences) < _FEW:
        return "position"
    if sequences.groups is not None:
        return "group" if len(set(sequences.groups)) >= _FEW else "random"
    if sequences.start_times is None:
        return "random"
    if not _side_by_side(sequences.start_times):
        return "time"
    long = int(np.median(sequences.lengths)) >= _LONG
    return "position" if long and sequences.kind == "values" and sequences.labels is None else "random"


def _side_by_side(times: np.ndarray) -> bool:
    """True where at least half of the sequences begin at one time: none of them is the past of another."""
    known = times[~(np.isnan(times) if times.dtype.kind == "f" else np.isnat(times))]
    return bool(len(known)) and 2 * int(np.unique(known, return_counts=True)[1].max()) >= len(times)


def _units(sequences: Sequences, way: How, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The order in which train, validation and test take the sequences, the sizes of what stays together, a note."""
    times, alone = sequences.start_times, np.ones(len(sequences), np.int64)
    if way == "time" and times is not None:
        return _by_time(times), alone, "split by time: the past trains, the future tests"
    if way == "group":
        number = _group_numbers(sequences.groups or [])
        order = np.argsort(number, kind="stable")
        starts = np.flatnonzero(np.diff(number[order], prepend=-1))
        sizes = np.diff(np.append(starts, len(order)))
        if times is not None:
            turn = _by_time(np.fmin.reduceat(times[order], starts))  # one missing time hides no other
            told = "split by group: whole groups, those that begin first train"
        else:
            turn = generator(seed, "split").permutation(len(starts))
            told = f"split by group: whole groups at random (seed {seed})"
        return order[spans(starts[turn], sizes[turn])], sizes[turn], told
    return generator(seed, "split").permutation(len(sequences)), alone, f"split at random (seed {seed})"


def _group_numbers(groups: Sequence[str | None]) -> np.ndarray:
    """Number of each sequence's group, in the order of their names; what has no group is one by itself."""
    number = {name: at for at, name in enumerate(sorted({name for name in groups if name is not None}))}
    return np.array([len(number) + at if name is None else number[name] for at, name in enumerate(groups)])


def _by_time(times: np.ndarray) -> np.ndarray:
    """The order of time; what has none is empty, comes first and so trains."""
    missing = np.isnan(times) if times.dtype.kind == "f" else np.isnat(times)
    return np.lexsort((times, ~missing))


def _divide(order: np.ndarray, sizes: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """Consecutive units by their share of the sequences; every part with a share gets a unit while there are enough."""
    edges = np.concatenate([[0], np.cumsum(sizes)])
    first, second = (int(np.abs(edges - share * edges[-1]).argmin()) for share in np.cumsum(shares)[:2])
    wanted = [int(share > 0) for share in shares]
    if len(sizes) >= sum(wanted):
        second = min(max(second, wanted[0] + wanted[1]), len(sizes) - wanted[2])
        first = min(max(first, wanted[0]), second - wanted[1])
    return np.split(order, edges[[first, second]])


def _by_position(sequences: Sequences, shares: np.ndarray, seed: int) -> Split:
    lengths = sequences.lengths
    cuts = np.round(np.outer(lengths, np.cumsum(shares)[:2])).astype(np.int64)
    numbers = np.arange(len(sequences))
    which = "the one sequence is" if len(sequences) == 1 else f"each of the {len(sequences)} sequences is"
    share = " and ".join(f"{100 * value:g} %" for value in (shares[0], shares[1]))
    note = f"{which} cut by position: the first {share} train and validate, the rest tests"
    return Split(train=numbers, valid=numbers, test=numbers, how="position", seed=seed, notes=(note,), cuts=cuts)


def _given(sequences: Sequences, shares: np.ndarray, seed: int, test: Any) -> Split:
    held = np.asarray(test)
    if held.dtype == bool and held.shape != (len(sequences),):
        raise ConfigError(f"the mask of the test part has {held.size} entries; there are {len(sequences)} sequences")
    held = np.flatnonzero(held) if held.dtype == bool else np.unique(held.astype(np.int64))
    if len(held) and not 0 <= held[0] <= held[-1] < len(sequences):
        wrong = held[0] if held[0] < 0 else held[-1]
        raise ConfigError(f"the test part names sequence {wrong}; there are {len(sequences)}")
    rest = np.setdiff1d(np.arange(len(sequences)), held)
    if not len(rest) or not len(held):
        raise ConfigError("a given test part must leave something for both test and train")
    inner = shares[:2] / shares[:2].sum()
    kept = sequences.select(rest)
    way = _way(kept, "auto", None)
    order, sizes, note = _units(kept, "random" if way == "position" else way, seed)
    train, valid, _ = _divide(order, sizes, np.array([*inner, 0.0]))
    notes = ("the test part is given", f"the rest: {note}")
    return Split(train=np.sort(rest[train]), valid=np.sort(rest[valid]), test=held, how="given", seed=seed, notes=notes)


def _shares(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or not shares[0] > 0 or abs(shares.sum() - 1) > 1e-6:
        raise ConfigError(f"fractions are three shares of train, validation and test that add up to 1, not {fractions}")
    return shares
