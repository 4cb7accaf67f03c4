"""The workflow net of a process tree: places, transitions and arcs, for pictures and for other tools.

Leaves become transitions; an operator adds places between its children, and silent transitions where branches part and
meet. One token in place 0 is the start, one in place 1 the end, and no place ever holds two.
Source: Leemans, Fahland and van der Aalst, 2013, doi:10.1007/978-3-642-38697-8_17, section 3.
"""

from dataclasses import dataclass
from itertools import pairwise

from seqloom.models.classical._process_tree import CHOICE, LOOP, PARALLEL, SEQUENCE, SILENT, SYMBOL, Tree

SOURCE, SINK = 0, 1


@dataclass(frozen=True)
class Net:
    """A workflow net; transitions are numbered by their place in ``labels``."""

    places: int
    """How many places there are; 0 holds the first token, 1 the last."""
    labels: tuple[int, ...]
    """Symbol of each transition, -1 for a silent one."""
    arcs_in: tuple[tuple[int, int], ...]
    """Arcs (place, transition): a transition takes a token from each of its places."""
    arcs_out: tuple[tuple[int, int], ...]
    """Arcs (transition, place): and puts one into each of these."""

    def fire(self, marking: frozenset[int], transition: int) -> frozenset[int] | None:
        """The marking after a transition, None where it is not enabled. A marking is the set of places with a token."""
        before = {place for place, t in self.arcs_in if t == transition}
        if not before <= marking:
            return None
        return (marking - before) | {place for t, place in self.arcs_out if t == transition}


def net_of(tree: Tree) -> Net:
    """The net of a tree."""
    build = _Build()
    build.add(tree, SOURCE, SINK)
    return Net(build.places, tuple(build.labels), tuple(build.arcs_in), tuple(build.arcs_out))


class _Build:
    def __init__(self) -> None:
        self.places = 2
        self.labels: list[int] = []
        self.arcs_in: list[tuple[int, int]] = []
        self.arcs_out: list[tuple[int, int]] = []

    def add(self, tree: Tree, begin: int, end: int) -> None:
        """Put a tree between two places."""
        kind, children = tree.kind, tree.children
        if kind in (SYMBOL, SILENT):
            self.transition(tree.symbol, [begin], [end])
        elif kind == SEQUENCE:
            stops = [begin, *(self.place() for _ in children[1:]), end]
            for child, (first, last) in zip(children, pairwise(stops), strict=True):
                self.add(child, first, last)
        elif kind == CHOICE:
            for child in children:
                self.add(child, begin, end)
        elif kind == PARALLEL:
            inner = [(self.place(), self.place()) for _ in children]
            self.transition(-1, [begin], [first for first, _ in inner])
            for child, (first, last) in zip(children, inner, strict=True):
                self.add(child, first, last)
            self.transition(-1, [last for _, last in inner], [end])
        elif kind == LOOP:
            ready, done = self.place(), self.place()  # its own, or a neighbour in a choice could slip into the loop
            self.transition(-1, [begin], [ready])
            self.add(children[0], ready, done)
            self.add(children[1], done, ready)
            self.transition(-1, [done], [end])

    def place(self) -> int:
        self.places += 1
        return self.places - 1

    def transition(self, label: int, before: list[int], after: list[int]) -> None:
        self.arcs_in += [(place, len(self.labels)) for place in before]
        self.arcs_out += [(len(self.labels), place) for place in after]
        self.labels.append(label)
