"""Process trees: what order symbols may come in, said with four operators.

    ->(x, y)   x, then y             X(x, y)   one of them
    +(x, y)    both, interleaved     *(x, y)   x, then any number of times y and x again
    'a'        the symbol a          tau       nothing

A mined tree names each symbol at one leaf only. Trees are made by ``join``, which keeps them in a normal form: an
operator never stands directly below itself, and tau stands only where it says something.
Source: Leemans, Fahland and van der Aalst, 2013, doi:10.1007/978-3-642-38697-8_17, section 3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SYMBOL, SILENT, SEQUENCE, CHOICE, PARALLEL, LOOP = range(6)
SIGNS = {SEQUENCE: "->", CHOICE: "X", PARALLEL: "+", LOOP: "*"}
ASSOCIATIVE = (SEQUENCE, CHOICE, PARALLEL)


@dataclass(frozen=True, slots=True)
class Tree:
    """A node with all that is below it."""

    kind: int
    symbol: int = -1
    """Which symbol a leaf stands for; -1 for the other kinds."""
    children: tuple["Tree", ...] = ()
    """In their order for a sequence; what is done and what leads back for a loop."""

    def leaves(self) -> Iterator[int]:
        """Symbols from left to right."""
        for node in self.nodes():
            if node.kind == SYMBOL:
                yield node.symbol

    def nodes(self) -> Iterator["Tree"]:
        """Every node before its children."""
        rest: list[Tree] = [self]
        while rest:
            node = rest.pop()
            yield node
            rest += node.children[::-1]


TAU = Tree(SILENT)


def leaf(symbol: int) -> Tree:
    """A symbol by itself."""
    return Tree(SYMBOL, symbol)


def join(kind: int, children: Sequence[Tree]) -> Tree:
    """Children below an operator, in normal form."""
    if kind == LOOP:
        return Tree(LOOP, children=tuple(children))
    flat: list[Tree] = []
    for child in children:
        flat.extend(child.children if child.kind == kind else [child])
    silent = TAU in flat
    flat = [child for child in flat if child != TAU]
    if kind == CHOICE and silent and not any(empty(child) for child in flat):
        flat = [TAU, *flat]
    if len(flat) < 2:
        return flat[0] if flat else TAU
    return Tree(kind, children=tuple(flat))


def flower(symbols: Sequence[int]) -> Tree:
    """Any of the symbols in any order, as often as one likes."""
    return join(LOOP, [TAU, join(CHOICE, [leaf(symbol) for symbol in symbols])]) if symbols else TAU


def empty(tree: Tree) -> bool:
    """True where the tree may be passed without a symbol."""
    if tree.kind in (SYMBOL, SILENT):
        return tree.kind == SILENT
    if tree.kind == LOOP:
        return empty(tree.children[0])
    return (any if tree.kind == CHOICE else all)(empty(child) for child in tree.children)


def text(tree: Tree, names: Mapping[int, str]) -> str:
    """Printable form, as process miners write it: ``->( 'a', X( tau, 'b' ) )``."""
    if tree.kind == SILENT:
        return "tau"
    if tree.kind == SYMBOL:
        return f"'{names.get(tree.symbol, tree.symbol)}'"
    return f"{SIGNS[tree.kind]}( {', '.join(text(child, names) for child in tree.children)} )"


def flatten(tree: Tree) -> list[tuple[int, int, int]]:
    """Rows (kind, symbol, children), each node before its children: the form that is saved."""
    return [(node.kind, node.symbol, len(node.children)) for node in tree.nodes()]


def unflatten(rows: Sequence[Sequence[int]]) -> Tree:
    """The tree of such rows. ValueError where they are not those of one tree with each symbol at one leaf."""
    done: list[Tree] = []
    for kind, symbol, count in reversed(rows):
        least = {SYMBOL: 0, SILENT: 0}.get(kind, 2)
        if kind not in range(6) or not least <= count <= len(done) or (least == 0) != (count == 0):
            raise ValueError(f"a node of kind {kind} cannot have {count} children")
        if kind == LOOP and count != 2:
            raise ValueError(f"a loop of {count} children")
        children = [done.pop() for _ in range(count)]
        done.append(Tree(int(kind), int(symbol), tuple(children)))
    if len(done) != 1:
        raise ValueError(f"{len(done)} trees instead of one")
    leaves = list(done[0].leaves())
    if len(set(leaves)) != len(leaves) or min(leaves, default=0) < 0:
        raise ValueError("a symbol stands at two leaves")
    return done[0]
