"""What is in a file, before anything is trained: kind, lengths, alphabet, time span, duplicates, likely task."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seqloom.app.data import source_of
from seqloom.core.errors import DataError
from seqloom.data._leakage import fingerprints, repeats
from seqloom.data.features import two_columns, value_names
from seqloom.data.sequences import Sequences
from seqloom.data.splits import leakage, split
from seqloom.tokenizers import default_tokenizer, get
from seqloom.training.source import fingerprint_of, located

SHOWN = 8


@dataclass(frozen=True)
class Inspection:
    """The answers, in the order in which they are shown."""

    source: str
    kind: str
    """text, symbols or values, and what they look like."""
    sequences: int
    symbols: int
    lengths: tuple[int, int, int]
    """Shortest, median, longest."""
    alphabet: int
    """Different symbols."""
    frequent: dict[str, int]
    """The most frequent ones with their counts."""
    time: tuple[str, str] | None
    """First and last event."""
    duplicates: int
    """Sequences that stand there before, symbol for symbol."""
    labels: dict[str, int]
    """Classes with their counts."""
    task: str
    """What is likely to be asked."""
    tokenizer: str | None
    """What would make the symbols."""
    split: tuple[str, ...]
    """How the held-out parts would be chosen, and what the parts would share."""
    values: dict[str, tuple[float, float, float]]
    """Channels of real values with their least, mean and largest."""
    channels: tuple[str, ...]
    """Other event columns."""
    fingerprint: str
    """SHA-256 of the file."""
    notes: tuple[str, ...]
    """Guesses, each with the flag that overrides it."""

    def figures(self) -> dict[str, Any]:
        """By name, ready for JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Pairs of a heading and a text for people."""
        low, middle, high = self.lengths
        shown = [
            ("file", self.source),
            (
                "holds",
                f"{self.sequences:,} sequences, {self.symbols:,} {'steps' if self.values else 'symbols'} ({self.kind})",
            ),
            ("lengths", f"{low:,} to {high:,}, median {middle:,}"),
            (
                "alphabet",
                f"{self.alphabet:,} symbols: {_listed(self.frequent, self.alphabet)}" if self.alphabet else "",
            ),
            ("values", "; ".join(_range(name, *own) for name, own in self.values.items())),
            ("time", " to ".join(self.time) if self.time else "none"),
            ("duplicates", f"{self.duplicates:,} sequences" if self.duplicates else "none"),
            ("labels", _listed(self.labels, len(self.labels)) or "none"),
            ("channels", ", ".join(self.channels) or "none"),
            ("task", f"{self.task}, symbols made by the tokenizer {self.tokenizer}" if self.tokenizer else self.task),
            ("split", " ".join(self.split)),
            ("fingerprint", self.fingerprint),
        ]
        return [*((name, text) for name, text in shown if text), *(("guessed", note) for note in self.notes)]


def inspect(source: Any) -> Inspection:
    """Look at a path, ``sample:NAME``, a FileSource, a frame, lists or arrays; everything is read once."""
    from seqloom.data.reading import sniff

    given, sequences = source_of(source)
    notes: tuple[str, ...] = ()
    in_file = given.path not in ("", "-")
    hashing = _beside(fingerprint_of, located(given.path)) if in_file else None
    if sequences is None:
        if given.path != "-":
            notes = sniff(located(given.path), columns=given.columns, reader=given.reader).notes
        sequences = given.read()
    if not len(sequences):
        raise DataError("holds no sequences", file=sequences.source, mend="Check --case, --event or --text.")
    tokenizer = None if sequences.kind == "values" else default_tokenizer(sequences)
    symbols, frequent = _alphabet(sequences, tokenizer)
    lengths_N, hashes_N = sequences.lengths, fingerprints(sequences)
    return Inspection(
        source=given.path or "memory",
        kind=sequences.kind if sequences.kind == sequences.alphabet else f"{sequences.kind}, {sequences.alphabet}",
        sequences=len(sequences),
        symbols=int(lengths_N.sum()),
        lengths=(int(lengths_N.min()), int(np.median(lengths_N)), int(lengths_N.max())),
        alphabet=symbols,
        frequent=frequent,
        time=_span(sequences),
        duplicates=repeats(hashes_N),
        labels=dict(Counter(str(label) for label in sequences.labels or [] if label is not None).most_common(SHOWN)),
        task="classify" if sequences.labels is not None else "next",
        tokenizer=tokenizer,
        split=_split(sequences, hashes_N),
        values=_values(sequences),
        channels=sequences.channels,
        fingerprint=fingerprint_of(sequences) if hashing is None else hashing.result(),
        notes=tuple(dict.fromkeys([*notes, *sequences.notes])),
    )


def _alphabet(sequences: Sequences, tokenizer: str | None) -> tuple[int, dict[str, int]]:
    if tokenizer is None:
        return 0, {}
    kind: Any = get(tokenizer)
    vocabulary = kind().fit(sequences)
    seen = sum(count > 0 for count in vocabulary.counts)
    return seen, dict(zip(vocabulary.symbols[:SHOWN], vocabulary.counts[:SHOWN], strict=True))


def _values(sequences: Sequences) -> dict[str, tuple[float, float, float]]:
    names = value_names(sequences)
    flat_LC = two_columns(sequences.values().flat) if names else np.zeros((0, 0))
    if not len(flat_LC):
        return {}
    return {
        name: (float(own.min()), float(own.mean()), float(own.max()))
        for name, own in zip(names, flat_LC.T, strict=True)
    }


def _range(name: str, low: float, middle: float, high: float) -> str:
    return f"{name} {low:.6g} to {high:.6g}, mean {middle:.6g}"


def _span(sequences: Sequences) -> tuple[str, str] | None:
    starts, ends = sequences.start_times, sequences.end_times
    if starts is None or ends is None:
        return None
    known = [times[~(np.isnan(times) if times.dtype.kind == "f" else np.isnat(times))] for times in (starts, ends)]
    if not len(known[0]) or not len(known[1]):
        return None
    return _moment(known[0].min()), _moment(known[1].max())


def _moment(value: Any) -> str:
    return str(value).removesuffix(".000000").replace("T", " ")


def _beside(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Start something on a thread of its own."""
    pool = ThreadPoolExecutor(1)
    job = pool.submit(work, *arguments)
    pool.shutdown(wait=False)
    return job


def _split(sequences: Sequences, hashes_N: np.ndarray) -> tuple[str, ...]:
    cut = split(sequences)
    return (*(note + "." for note in cut.notes), *leakage(sequences, cut, hashes_N).sentences)


def _listed(counts: dict[str, int], of: int) -> str:
    shown = ", ".join(f"{symbol!r} {count:,}" for symbol, count in counts.items())
    return shown + (", ..." if of > len(counts) else "")
