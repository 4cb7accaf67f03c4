"""The best model looked at closely, on the test part: how sure it is, where it is surprised, and by what.

At most ``MOST`` predictions are looked at, of sequences that are spread evenly over the test part; where it is
surprised was kept when the whole of it was judged.
Shapes: N predictions, B bins, R rows of a table, V vocabulary, L steps of all, P predicted channels.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from seqloom.app import _regress
from seqloom.app._by_prefix import ERROR, Kept, intervals
from seqloom.app._values import ValueEngine
from seqloom.app.judge import LEAST
from seqloom.app.report._strips import Strip, strips_of, visible, worst_first
from seqloom.app.report._sure import curve, inside, sure
from seqloom.core.errors import SeqloomError
from seqloom.data.sequences import Sequences
from seqloom.training.prepare import encoded

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison, Entry
    from seqloom.app.fitted import Fitted
    from seqloom.evaluation._reliability import Reliability

MOST = 20_000
COSTLY = 20
UNSURE = 0.05
"""Bits of a class from which on a sequence is worth showing."""


@dataclass(frozen=True)
class Place:
    """Positions of a sequence (steps ahead, lengths) and what they cost."""

    first: int
    last: int
    error: float
    """Of each prediction there: bits, or the scaled error of a forecast."""
    low: float
    """Ends of the interval over test sequences; NaN where one is all there is."""
    high: float
    count: int

    @property
    def name(self) -> str:
        """As it is shown."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


@dataclass(frozen=True)
class Cost:
    """A symbol, a channel or a class that came, and what it cost."""

    name: str
    count: int
    bits: float
    """Each time."""
    share: float
    """Of all bits."""


@dataclass(frozen=True)
class Details:
    """What was seen of one model."""

    name: str
    looked: str
    """At what, in words."""
    what: str
    """symbol, channel, class or number."""
    predicts: str = "next"
    unit: str = ""
    """Of a number."""
    reliability: "Reliability | None" = None
    places: list[Place] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)


def details(found: "Comparison") -> Details | None:
    """Look at the best model that was trained; None where there is none, or its folder is gone."""
    entry = next((e for e in found.entries if e.row is not None and e.row.mean is not None and e.trained), None)
    if entry is None or found.loaded is None or not len(found.loaded.prepared.parts.get("test", ())):
        return None
    part = found.loaded.prepared.parts["test"]
    try:
        fitted = entry.chosen.model()
        look = {"classify": _classes, "regress": _numbers}.get(found.predicts, _steps)
        seen = look(entry, fitted, part)
    except (SeqloomError, MemoryError, RuntimeError):
        return None  # a saved arm may have been removed since, a device may be full: the page can do without
    places = places_of(entry.chosen.judgement.by_prefix, found.predicts)
    return replace(seen, predicts=found.predicts, places=places)


def _steps(entry: "Entry", fitted: "Fitted", part: Sequences) -> Details:
    """A model of what comes next: symbols or values."""
    seen = spread(part, MOST)
    what = "channel" if fitted.predicts_values else "symbol"
    frame = fitted.surprise(seen)
    examples = encoded(seen, fitted.tokenizer, fitted.engine.blueprint.features)
    engine: Any = fitted.engine
    reliability = inside(engine, examples) if isinstance(engine, ValueEngine) else curve(*sure(engine, examples))
    return Details(
        name=entry.name,
        looked=_looked(len(frame), "value" if fitted.predicts_values else "symbol", seen is part),
        what=what,
        reliability=reliability,
        costs=_costs(frame[what].to_list(), frame["bits"].to_numpy()),
        strips=strips_of(fitted, worst_first(part, entry.chosen.judgement), MOST),
    )


def _numbers(entry: "Entry", fitted: "Fitted", part: Sequences) -> Details:
    """A model that tells a number after every event."""
    seen = spread(part, MOST)
    whole = part.select(np.flatnonzero(np.isin(part.rows, seen.rows)))  # a cut sequence would have another end
    examples = encoded(whole, fitted.tokenizer, fitted.engine.blueprint.features)
    engine: Any = fitted.engine
    looked = _looked(int(np.sum(whole.lengths)), "number", len(whole) == len(part))
    held = _regress.inside(engine, whole, examples)
    return Details(name=entry.name, looked=looked, what="number", unit=engine.target.unit, reliability=held)


def _classes(entry: "Entry", fitted: "Fitted", part: Sequences) -> Details:
    """A classifier: one prediction a sequence."""
    seen = spread(part, MOST) if int(np.sum(part.lengths)) > 50 * MOST else part
    said, scored = fitted.predict(seen), fitted.score(seen)
    bits_N = np.minimum(scored["bits"].to_numpy(), -np.log2(LEAST))
    hit_N = np.array([label == told for label, told in zip(scored["label"], scored["class"], strict=True)], bool)
    order = np.argsort(-bits_N, kind="stable")[:5].tolist()
    strips = [
        Strip(
            id=scored["id"][at],
            bits=float(bits_N[at]),
            about=f"is {scored['label'][at]}, said to be {scored['class'][at]} "
            f"with a probability of {said['probability'][at]:.2f}",
            text=shortened(seen.sequence(at)),
        )
        for at in order
        if bits_N[at] > UNSURE
    ]
    return Details(
        name=entry.name,
        looked=_looked(len(seen), "sequence", seen is part),
        what="class",
        reliability=curve(said["probability"].to_numpy(), hit_N) if len(seen) else None,
        costs=_costs(scored["label"].to_list(), bits_N),
        strips=strips,
    )


def spread(part: Sequences, most: int) -> Sequences:
    """Sequences spread evenly over a part, about ``most`` steps in all; the last of them may be cut."""
    total = int(np.sum(part.lengths))
    if total <= most:
        return part
    chosen = part.select(np.arange(0, len(part), min(-(-total // most), len(part))))
    before_N = np.cumsum(chosen.lengths) - chosen.lengths
    kept = chosen.select(np.flatnonzero(before_N < most))
    return kept.cut(np.zeros(len(kept), np.int64), np.minimum(kept.lengths, most - before_N[before_N < most]))


def places_of(kept: Kept, predicts: str) -> list[Place]:
    """What each position cost: behind a prefix of n symbols stands position n + 1."""
    if ERROR not in kept:
        return []
    own, shift = kept[ERROR], int(predicts in ("next", "values"))
    first, last = ((edge_B + shift).tolist() for edge_B in (own.first_B, own.last_B))
    rows = zip(first, last, intervals(kept, predicts), own.symbols_B.tolist(), strict=True)
    return [Place(begin, end, *interval, count) for begin, end, interval, count in rows if count]


def shortened(sequence: Any, limit: int = 160) -> str:
    """A sequence as text, its end left out where it is long."""
    if isinstance(sequence, str):
        text = sequence[: limit + 1]
    else:
        text = " ".join(f"{one:.4g}" if isinstance(one, float) else str(one) for one in _flat(sequence[: limit + 1]))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _flat(sequence: Any) -> list[Any]:
    return np.asarray(sequence).ravel().tolist() if isinstance(sequence, np.ndarray) else list(sequence)


def _costs(names: list[str | None], bits_N: np.ndarray) -> list[Cost]:
    """What cost most in all, the dearest first."""
    frame = pl.DataFrame({"name": names, "bits": bits_N}, schema_overrides={"name": pl.String})
    sums = frame.group_by("name", maintain_order=True).agg(pl.len().alias("count"), pl.col("bits").sum())
    total = max(float(bits_N[np.isfinite(bits_N)].sum()), 1e-12)
    dearest = sums.sort("bits", descending=True, maintain_order=True).head(COSTLY)
    return [
        Cost(visible(str(name)), count, bits / count, bits / total)
        for name, count, bits in dearest.select("name", "count", "bits").iter_rows()
    ]


def _looked(count: int, what: str, whole: bool) -> str:
    words = f"{count:,} {what}{'' if count == 1 else 's'}"
    return f"{words} of the test part" + ("" if whole else ", of sequences spread evenly over it")
