"""What a test part shares with the training part, in plain sentences."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    from seqloom.data.splits import Split

_BLOCK = 1 << 17  # symbols hashed at a time: all that is computed of them stays in the cache


@dataclass(frozen=True, kw_only=True)
class LeakageReport:
    """Counts of what stands on both sides of a split, and sentences that say so."""

    duplicates: dict[str, int] = field(default_factory=dict)
    """Sequences of ``valid`` and ``test`` that also stand in an earlier part, symbol for symbol."""
    shared_groups: int = 0
    """Groups with sequences in train and in test."""
    overlapping: int = 0
    """Training sequences whose last event comes after the first event of the test part."""
    sentences: tuple[str, ...] = ()
    """The report."""

    @property
    def clean(self) -> bool:
        """True where nothing was found."""
        return not (any(self.duplicates.values()) or self.shared_groups or self.overlapping)


def leakage(sequences: Sequences, split: "Split", hashes: np.ndarray | None = None) -> LeakageReport:
    """Look for exact duplicates, shared groups and overlapping times. Cost: one pass over the symbols.

    Args:
        sequences: All of them.
        split: How they are divided.
        hashes: Their fingerprints, where they are known.
    """
    if split.cuts is not None:
        return LeakageReport(sentences=("The parts follow one another in the same sequence; none shares a symbol.",))
    duplicates, told = _duplicates(fingerprints(sequences) if hashes is None else hashes, split)
    groups, about_groups = _groups(sequences, split)
    overlapping, about_time = _overlap(sequences, split)
    sentences = [*told, *about_groups, *about_time]
    if not any(duplicates.values()) and not groups and not overlapping:
        sentences.append("No leak between train, validation and test was found.")
    return LeakageReport(
        duplicates=duplicates, shared_groups=groups, overlapping=overlapping, sentences=tuple(sentences)
    )


def _duplicates(hashes: np.ndarray, split: "Split") -> tuple[dict[str, int], list[str]]:
    counts, sentences = {}, []
    earlier, named = hashes[split.train], "train"
    for name, part in (("valid", split.valid), ("test", split.test)):
        found = int(known(hashes[part], earlier).sum())
        counts[name] = found
        if found:
            share = 100 * found / len(part)
            sentences.append(
                f"{found} of {len(part)} {name} sequences ({share:.1f} %) also stand in {named}, symbol for symbol."
            )
        earlier, named = np.concatenate([earlier, hashes[part]]), "train or valid"
    return counts, sentences


def known(hashes_N: np.ndarray, among_M: np.ndarray) -> np.ndarray:
    """True where a hash stands among others (N,). By one sort: numpy's own tables take ten times as long."""
    if not len(among_M):
        return np.zeros(len(hashes_N), bool)
    sorted_M = np.sort(among_M)
    return sorted_M[np.minimum(np.searchsorted(sorted_M, hashes_N), len(sorted_M) - 1)] == hashes_N


def repeats(hashes_N: np.ndarray) -> int:
    """How many hashes stand there before."""
    sorted_N = np.sort(hashes_N)
    return int((sorted_N[1:] == sorted_N[:-1]).sum())


def _groups(sequences: Sequences, split: "Split") -> tuple[int, list[str]]:
    groups = sequences.groups
    if groups is None:
        return 0, []
    before, test = ({groups[i] for i in part} for part in ((*split.train, *split.valid), split.test))
    shared = len((before & test) - {None})
    if not shared:
        return 0, ["No group stands on both sides of the test part."]
    return shared, [f"{shared} groups have sequences both in test and before it; --split group keeps groups whole."]


def _overlap(sequences: Sequences, split: "Split") -> tuple[int, list[str]]:
    starts, ends = sequences.start_times, sequences.end_times
    if starts is None or ends is None or not len(split.test) or not len(split.train):
        return 0, []
    begin, stop = starts[split.test], ends[split.train]
    missing = np.isnan if starts.dtype.kind == "f" else np.isnat
    begin, stop = begin[~missing(begin)], stop[~missing(stop)]
    late = int((stop > begin.min()).sum()) if len(begin) and len(stop) else 0
    if not late:
        return 0, ["Every training sequence ends before the first test sequence begins."] if len(begin) else []
    return late, [
        (
            f"{late} of {len(split.train)} training sequences still run when the first test sequence begins "
            f"({begin.min()}): they have seen part of the test's time."
        )
    ]


def fingerprints(sequences: Sequences) -> np.ndarray:
    """A 64-bit hash of each sequence's symbols; equal sequences have equal hashes."""
    if sequences.kind == "text":
        import polars as pl

        series = pl.Series(sequences.table["sequence"])
        return series.hash(0).to_numpy()
    codes = sequences.symbols()[0] if sequences.kind == "symbols" else _bits(sequences.values())
    hashes = np.zeros(len(codes), dtype=np.uint64)
    start = 0
    while start < len(codes):  # several sequences at a time, so that memory does not grow with the data
        stop = int(np.searchsorted(codes.offsets, codes.offsets[start] + _BLOCK, side="right")) - 1
        stop = min(max(stop, start + 1), len(codes))
        hashes[start:stop] = _hash(codes[start:stop])
        start = stop
    return hashes


def _bits(values: Ragged) -> Ragged:
    flat = np.ascontiguousarray(values.values).view(np.int64)
    if flat.ndim == 2:
        flat = np.bitwise_xor.reduce(flat * np.arange(1, 2 * flat.shape[1], 2), axis=1)
    return Ragged(flat, values.offsets)


def _hash(part: Ragged) -> np.ndarray:
    """Sum over positions of a mix of symbol and position: splitmix64, wrapping."""
    lengths = part.lengths
    position = np.arange(part.total, dtype=np.uint64) - np.repeat(part.offsets[:-1] - part.offsets[0], lengths).astype(
        np.uint64
    )
    mixed = _mix(_mix(part.flat.astype(np.uint64)) + position * np.uint64(0x9E3779B97F4A7C15))
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    at = part.offsets - part.offsets[0]
    return before[at[1:]] - before[at[:-1]] + _mix(lengths.astype(np.uint64))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
