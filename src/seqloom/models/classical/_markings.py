"""Where a run of a process tree stands, and what may come next: the markings of its net without firing in vain.

A marking is 0 (not begun), 1 (over), or what an operator knows about its children:

    ->, X, *   (which child, its marking)      +   (bits of the children that are over, (child, its marking), ..)

Silent transitions are fired only where the next symbol asks for them, and only on the way to its leaf. So branches that
nobody touches do not multiply the markings, and places that a net shares are one marking here: after any symbol of a
flower the run stands where it stood. Moving over a leaf without reading its symbol (a model move) costs 1.
"""

from functools import cached_property
from typing import Any

from seqloom.models.classical._process_tree import CHOICE, LOOP, PARALLEL, SEQUENCE, SILENT, SYMBOL, Tree

FRESH, OVER = 0, 1
Marking = Any
"""Nested tuples of numbers; see above."""


class Node:
    """A node of a tree with what replay asks of it."""

    def __init__(self, tree: Tree) -> None:
        self.kind, self.symbol = tree.kind, tree.symbol
        self.kids = [Node(child) for child in tree.children]
        costs = [kid.least for kid in self.kids]
        self.least = {SYMBOL: 1, SILENT: 0}.get(tree.kind, sum(costs))
        """Fewest model moves that pass the node."""
        if tree.kind == CHOICE:
            self.least = min(costs)
        elif tree.kind == LOOP:
            self.least = costs[0]

    @cached_property
    def opens(self) -> frozenset[int]:
        """Symbols that may come first."""
        if self.kind == SYMBOL:
            return frozenset([self.symbol])
        if self.kind in (CHOICE, PARALLEL):
            return frozenset().union(*(kid.opens for kid in self.kids))
        found: frozenset[int] = frozenset()
        for kid in self.kids:  # a loop whose body may be passed begins with what leads back
            found |= kid.opens
            if kid.least:
                break
        return found

    def paths(self) -> dict[int, tuple[int, ...]]:
        """Which child to take at each node on the way to each symbol's leaf."""
        out: dict[int, tuple[int, ...]] = {}
        rest: list[tuple[Node, tuple[int, ...]]] = [(self, ())]
        while rest:
            node, way = rest.pop()
            if node.kind == SYMBOL:
                out[node.symbol] = way
            rest.extend((kid, (*way, at)) for at, kid in enumerate(node.kids))
        return out


def finish(node: Node, at: Marking) -> int:
    """Fewest model moves to the end of a node."""
    if at in (FRESH, OVER):
        return node.least if at == FRESH else 0
    if node.kind == PARALLEL:
        running = dict(at[1:])
        costs = (kid.least if k not in running else finish(kid, running[k]) for k, kid in enumerate(node.kids))
        return sum(cost for k, cost in enumerate(costs) if not at[0] >> k & 1)
    child, inner = at
    cost = finish(node.kids[child], inner)
    if node.kind == SEQUENCE:
        return cost + sum(kid.least for kid in node.kids[child + 1 :])
    return cost + (node.kids[0].least if node.kind == LOOP and child else 0)


def enabled(node: Node, at: Marking) -> frozenset[int]:
    """Symbols that may come next without a model move."""
    if at in (FRESH, OVER):
        return node.opens if at == FRESH else frozenset()
    kids = node.kids
    if node.kind == PARALLEL:
        running = dict(at[1:])
        ready = [enabled(kid, running.get(k, FRESH)) for k, kid in enumerate(kids) if not at[0] >> k & 1]
        return frozenset().union(*ready)
    child, inner = at
    found = enabled(kids[child], inner)
    if node.kind == CHOICE or finish(kids[child], inner):
        return found
    later = kids[child + 1 :] if node.kind == SEQUENCE else [kids[1 - child], kids[child]]
    for kid in later:
        found |= kid.opens
        if kid.least:
            break
    return found


def fire(node: Node, at: Marking, way: tuple[int, ...], limit: int) -> list[tuple[Marking, int]]:
    """Markings after a symbol, and how many model moves came before it; ``way`` leads to the symbol's leaf."""
    return _fire(node, at, way, 0, limit)[0]


def _fire(node: Node, at: Marking, way: tuple[int, ...], depth: int, limit: int) -> tuple[list, int]:
    """As ``fire`` from a node of the way on; and the moves to the node's end, which loops above ask for."""
    if at == OVER:
        return [], 0
    if node.kind == SYMBOL:
        return [(OVER, 0)], 1
    goal = way[depth]
    kid = node.kids[goal]
    if node.kind == PARALLEL:
        return _fire_beside(node, at, way, depth, limit)
    child, inner = at if at else (goal if node.kind == CHOICE else 0, FRESH)
    if child == goal:
        found, rest = _fire(kid, inner, way, depth + 1, limit)
    else:
        found, rest = [], finish(node.kids[child], inner)
    if node.kind == CHOICE:
        found = [(OVER if to == OVER else (goal, to), cost) for to, cost in found]
        return found, rest if at else node.least
    if node.kind == SEQUENCE:
        between = sum(over.least for over in node.kids[child + 1 : goal])
        if goal > child and rest + between <= limit:
            later, _ = _fire(kid, FRESH, way, depth + 1, limit - rest - between)
            found = [(to, cost + rest + between) for to, cost in later]
        found = [(_along(node, goal, to), cost) for to, cost in found]
        return found, rest + sum(over.least for over in node.kids[child + 1 :])
    spent = rest + (node.kids[1 - goal].least if child == goal else 0)
    if spent <= limit and not (child == goal and inner == FRESH):  # from a fresh child a turn leads nowhere new
        turned, _ = _fire(kid, FRESH, way, depth + 1, limit - spent)
        found = _cheapest([*found, *((to, cost + spent) for to, cost in turned)])
    return [(_around(goal, to), cost) for to, cost in found], rest + (node.kids[0].least if child else 0)


def _fire_beside(node: Node, at: Marking, way: tuple[int, ...], depth: int, limit: int) -> tuple[list, int]:
    done: int = at[0] if at else 0
    running: list[tuple[int, Marking]] = list(at[1:]) if at else []
    goal, known = way[depth], dict(running)
    rest = sum(
        kid.least if k not in known else finish(kid, known[k])
        for k, kid in enumerate(node.kids)
        if k != goal and not done >> k & 1
    )
    if done >> goal & 1:
        return [], rest
    found, own = _fire(node.kids[goal], known.get(goal, FRESH), way, depth + 1, limit)
    return [(_together(node, done, running, goal, to), cost) for to, cost in found], rest + own


def _cheapest(found: list[tuple[Marking, int]]) -> list[tuple[Marking, int]]:
    best: dict[Marking, int] = {}
    for to, cost in found:
        best[to] = min(cost, best.get(to, cost))
    return list(best.items())


def _along(node: Node, child: int, inner: Marking) -> Marking:
    if inner != OVER:
        return (child, inner)
    return OVER if child + 1 == len(node.kids) else (child + 1, FRESH)


def _around(child: int, inner: Marking) -> Marking:
    """The place before the body of a loop is one, whether it was entered or led back to."""
    return FRESH if (child, inner) in ((1, OVER), (0, FRESH)) else (child, inner)


def _together(node: Node, done: int, running: list[tuple[int, Marking]], child: int, inner: Marking) -> Marking:
    rest = [pair for pair in running if pair[0] != child]
    if inner == OVER:
        done |= 1 << child
        return OVER if done == (1 << len(node.kids)) - 1 else (done, *rest)
    if inner != FRESH:
        rest = sorted([*rest, (child, inner)], key=lambda pair: pair[0])
    return (done, *rest) if done or rest else FRESH


def rank(at: Marking) -> tuple[int, ...]:
    """A number row that orders markings of one tree."""
    row: list[int] = []
    rest = [at]
    while rest:
        part = rest.pop()
        if isinstance(part, tuple):
            row += [-1, len(part)]
            rest.extend(reversed(part))
        else:
            row.append(part)
    return tuple(row)
