"""What a model that can be read looks like: an automaton, a process tree, or what follows what.

A picture is laid out by the depth of its states (steps from where a sequence begins), left to right, with the most
used edges alone. Whatever is drawn stands in a table too.
Shapes: V vocabulary, L tokens of a stream.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqloom.app.report._strips import visible
from seqloom.core import discovery
from seqloom.core.errors import SeqloomError
from seqloom.core.specials import NAMES, SPECIALS

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison
    from seqloom.tokenizers._base import Tokenizer

EDGES, ROWS = 20, 20
WIDE, HIGH, RADIUS = 190, 84, 15
LEFT, TOP = 90, 66
"""Room for the words of loops at the rim."""


@dataclass(frozen=True)
class Way:
    """An edge as it is drawn: its line, and where its words stand."""

    line: str
    x: float
    y: float
    words: str
    width: float


@dataclass(frozen=True)
class Drawing:
    """Circles and lines."""

    width: int
    height: int
    nodes: Sequence[tuple[str, float, float]]
    ways: Sequence[Way]


@dataclass(frozen=True)
class Picture:
    """One model, drawn or written down."""

    title: str
    about: str
    headings: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    text: str = ""
    drawing: Drawing | None = None


def pictures(found: "Comparison") -> list[Picture]:
    """A picture of every model that offers one, the best model first; else what followed what in training."""
    if found.loaded is None or found.predicts != "next":
        return []
    tokenizer = found.loaded.prepared.tokenizer
    if tokenizer is None:
        return []
    made = []
    for entry in found.entries:
        if entry.row is None or not entry.trained or not _offers(entry.name):
            continue
        try:
            model: Any = entry.chosen.model().engine
        except SeqloomError:  # the folder is gone or damaged: the page can do without
            continue
        made.append(_automaton(entry.name, model.model, tokenizer) or _tree(entry.name, model.model, tokenizer))
    kinds = {bool(picture.text): picture for picture in reversed(made) if picture is not None}
    kept = [picture for picture in made if picture is not None and picture in kinds.values()]  # the best of each kind
    followed = _followed(found.loaded.prepared.train.whole().tokens, tokenizer, found.loaded.prepared.sizes.vocabulary)
    return kept or ([] if followed is None else [followed])


def _offers(name: str) -> bool:
    """True for classical models that keep an automaton or a tree; no others are read from the disk for nothing."""
    if name not in discovery.names("models/classical"):
        return False
    part: Any = discovery.get("models/classical", name)
    kept = {known for kind in part.__mro__ for known in (*vars(kind), *vars(kind).get("__annotations__", ()))}
    return "automaton" in kept or hasattr(discovery.module("models/classical", name), "tree")


def _automaton(name: str, model: Any, tokenizer: "Tokenizer") -> Picture | None:
    """The most used edges of an automaton."""
    if not hasattr(model, "automaton"):
        return None
    from seqloom.models.classical._automaton import edges

    own = model.automaton
    used = grown(edges(model, len(own.count)), EDGES)
    return Picture(
        title=f"The automaton of {name}",
        about=f"{len(used)} of {len(own.count):,} edges between {own.states:,} states: the most used ways that lead on "
        "from state 0, where a sequence begins. Thick lines are used often.",
        headings=("from state", "symbol", "to state", "times"),
        rows=[(str(e.source), written(e.symbol, tokenizer), _target(e), f"{e.count:,}") for e in used],
        drawing=drawn([(e.source, e.target, written(e.symbol, tokenizer), e.count) for e in used if not _ends(e)]),
    )


def grown(edges: list[Any], limit: int) -> list[Any]:
    """The most used edges that hang together: each begins at a state that the ones before it have reached."""
    by_source: dict[int, list[Any]] = {}
    for edge in edges:
        by_source.setdefault(edge.source, []).append(edge)
    reached, kept = {0}, []
    waiting = [(-edge.count, number, edge) for number, edge in enumerate(by_source.get(0, []))]
    heapq.heapify(waiting)
    while waiting and len(kept) < limit:
        _, _, edge = heapq.heappop(waiting)
        kept.append(edge)
        if edge.target not in reached and not _ends(edge):
            reached.add(edge.target)
            for next_edge in by_source.get(edge.target, []):
                heapq.heappush(waiting, (-next_edge.count, len(kept) * len(edges) + next_edge.symbol, next_edge))
    return kept


def _tree(name: str, model: Any, tokenizer: "Tokenizer") -> Picture | None:
    """The process tree that was discovered."""
    if not hasattr(model, "tree"):
        return None
    from seqloom.models.classical.inductive_miner import tree

    names = {id: written(id, tokenizer) for id in range(model.sizes.vocabulary)}
    about = (
        "-> one after the other, X one of them, + all in any order, * again and again, tau nothing. "
        "Whatever the tree does not allow is predicted by what is left of the probability."
    )
    return Picture(title=f"The process tree of {name}", about=about, text=tree(model, names))


def _followed(tokens: Any, tokenizer: "Tokenizer", size: int) -> Picture | None:
    """The most frequent pairs of neighbours in training, and how often the second follows the first."""
    if tokens is None or not tokens.total:
        return None
    flat = tokens.flat.astype(np.int64)
    inner_L = np.ones(len(flat), bool)
    inner_L[(tokens.offsets[1:] - tokens.offsets[0] - 1)[tokens.lengths > 0]] = False
    at = np.flatnonzero(inner_L)
    pairs, times = np.unique(flat[at] * size + flat[at + 1], return_counts=True)
    count_V = np.bincount(flat, minlength=size)
    order = np.argsort(-times, kind="stable")[:ROWS]
    rows = [
        (
            written(int(pair // size), tokenizer),
            written(int(pair % size), tokenizer),
            f"{count:,}",
            f"{count / count_V[pair // size]:.1%}",
        )
        for pair, count in zip(pairs[order], times[order], strict=True)
    ]
    about = "The most frequent pairs of neighbours in the training part, and how often the second follows the first."
    headings = ("symbol", "next symbol", "times", "of what follows")
    return Picture(title="What follows what", about=about, headings=headings, rows=rows) if rows else None


def written(id: int, tokenizer: "Tokenizer") -> str:
    """An id as people read it."""
    return NAMES[id] if id < SPECIALS.count else visible(tokenizer.render([id]))


def drawn(edges: Iterable[tuple[int, int, str, int]]) -> Drawing | None:
    """Lay states out by their depth; edges of one pair of states share a line."""
    merged: dict[tuple[int, int], tuple[list[str], int]] = {}
    for source, target, words, count in edges:
        known, before = merged.get((source, target), ([], 0))
        merged[source, target] = ([*known, words], before + count)
    if not merged:
        return None
    columns = _columns(list(merged))
    tallest = max(len(column) for column in columns)
    place = {
        state: (LEFT + WIDE * x, TOP + HIGH * ((tallest - len(column)) / 2 + y))
        for x, column in enumerate(columns)
        for y, state in enumerate(column)
    }
    most = max(count for _, count in merged.values())
    ways = [
        _way(place[source], place[target], _label(words), 1 + 4 * count / most)
        for (source, target), (words, count) in merged.items()
    ]
    nodes = [(str(state), x, y) for state, (x, y) in place.items()]
    return Drawing(2 * LEFT + WIDE * (len(columns) - 1), 2 * TOP + HIGH * (tallest - 1), nodes, ways)


def _columns(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """States by depth, each beside the states that lead to it."""
    first = min(min(pair) for pair in pairs)
    depth = {first: 0}
    waiting = [first]
    states = list(dict.fromkeys(state for pair in pairs for state in pair))
    for state in (*states, None):
        while waiting:
            here = waiting.pop(0)
            new = [target for source, target in pairs if source == here and target not in depth]
            depth |= dict.fromkeys(new, depth[here] + 1)
            waiting += dict.fromkeys(new)
        if state is not None and state not in depth:  # no drawn edge leads here
            depth[state] = 0
            waiting = [state]
    columns: list[list[int]] = [[] for _ in range(max(depth.values()) + 1)]
    for state, x in depth.items():
        columns[x].append(state)
    for before, column in itertools.pairwise(columns):
        column.sort(key=_beside(before, pairs))
    return columns


def _beside(before: list[int], pairs: list[tuple[int, int]]) -> Callable[[int], float]:
    def height(state: int) -> float:
        own = [before.index(source) for source, target in pairs if target == state and source in before]
        return float(np.mean(own)) if own else 0.0

    return height


def _way(source: tuple[float, float], target: tuple[float, float], words: str, width: float) -> Way:
    """A straight line forwards, a bow backwards, and a loop to itself, from rim to rim."""
    (a, b), (c, d) = source, target
    if source == target:
        line = f"M{a - 8:.0f} {b - RADIUS + 2:.0f}C{a - 26:.0f} {b - 46:.0f} {a + 26:.0f} {b - 46:.0f} "
        return Way(line + f"{a + 8:.0f} {b - RADIUS:.0f}", a, b - 38, words, width)
    far = abs(d - b) if c == a else abs(c - a)
    bow = 0.0 if c > a else 30 + far / 4  # past what lies between
    middle = ((a + c) / 2, (b + d) / 2 + bow) if c != a else (a + bow, (b + d) / 2)
    rims = [_rim(source, middle, RADIUS), _rim(target, middle, RADIUS + 4)]
    (p, q), (r, s) = rims
    label = ((p + 2 * middle[0] + r) / 4, (q + 2 * middle[1] + s) / 4)
    return Way(
        f"M{p:.0f} {q:.0f}Q{middle[0]:.0f} {middle[1]:.0f} {r:.0f} {s:.0f}", label[0], label[1] - 4, words, width
    )


def _rim(centre: tuple[float, float], towards: tuple[float, float], radius: float) -> tuple[float, float]:
    x, y = towards[0] - centre[0], towards[1] - centre[1]
    far = max(float(np.hypot(x, y)), 1e-9)
    return centre[0] + x / far * radius, centre[1] + y / far * radius


def _label(words: list[str]) -> str:
    first = ", ".join(word if len(word) <= 12 else word[:11] + "…" for word in words[:2])
    return first + (f" +{len(words) - 2}" if len(words) > 2 else "")


def _ends(edge: Any) -> bool:
    return edge.symbol == SPECIALS.eos


def _target(edge: Any) -> str:
    return "the end" if _ends(edge) else str(edge.target)
