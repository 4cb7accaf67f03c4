"""The inductive miner: a process tree from a log, by cutting its alphabet again and again.

    mine(L) = op(mine(L_1), .., mine(L_n))      where the directly-follows graph of L has a cut, L_i its pieces

Where there is none, a fall-through says less: a symbol that stands once in each trace, or beside everything else,
goes beside the rest; a trace that starts again is a loop; the last resort is the flower, which allows anything.
With noise above 0 (IMf) a log without a cut is cut by the graph without its rare edges, and what then does not fit is
left out. Every step is decided by the order of the ids, so that the same log gives the same tree.
Source: Leemans, Fahland and van der Aalst, 2013, doi:10.1007/978-3-642-38697-8_17, and 2014,
doi:10.1007/978-3-319-06257-0_6.
"""

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np

from seqloom.models.classical._cuts import Graph, Log, Parts, bridges, find, graph
from seqloom.models.classical._process_tree import (
    CHOICE,
    LOOP,
    PARALLEL,
    SEQUENCE,
    TAU,
    Tree,
    flower,
    join,
    leaf,
)

DEPTH = 120  # cuts within cuts; deeper logs become flowers, so that no recursion runs out
TRIES = 10_000_000  # cells of graphs that are looked at for a symbol without which there is a cut


def mine(log: Log, noise: float = 0.0, depth: int = 0) -> Tree:
    """The process tree of a log. With noise 0 every trace of the log fits."""
    beside: list[Tree] = []
    while True:
        log, spare = _without_empty(log, noise)
        if spare:
            return join(PARALLEL, [*beside, join(CHOICE, [TAU, mine(log, noise, depth + 1)])])
        of = graph(log)
        if not of.symbols or _single(of, noise):
            return join(PARALLEL, [*beside, leaf(of.symbols[0]) if of.symbols else TAU])
        if depth >= DEPTH:
            return join(PARALLEL, [*beside, flower(of.symbols)])
        cut = _cut(log, of, noise)
        if cut is not None:
            kind, logs = cut
            return join(PARALLEL, [*beside, _operator(kind, [mine(piece, noise, depth + 1) for piece in logs])])
        alone = _once(log, of) if len(of.symbols) > 1 else None
        alone = _concurrent(log, of, noise) if alone is None and len(of.symbols) > 1 else alone
        if alone is None:
            return join(PARALLEL, [*beside, _again(log, of, noise, depth)])
        beside.append(mine(_project(log, {alone}), noise, depth + 1))
        log = _project(log, set(of.symbols) - {alone})


def _single(of: Graph, noise: float) -> bool:
    """Whether a log is one symbol once a trace, where its repetition counts as any other rare edge."""
    return len(of.symbols) == 1 and not (of.filtered(noise) if noise > 0 else of).follows_AA.any()


def _without_empty(log: Log, noise: float) -> tuple[Log, bool]:
    """The log without empty traces, and whether these are frequent enough to be told."""
    if () not in log or len(log) == 1:
        return ({}, False) if len(log) == 1 and () in log else (log, False)
    rest = {trace: count for trace, count in log.items() if trace}
    return rest, log[()] > noise * sum(log.values())


def _operator(kind: int, trees: list[Tree]) -> Tree:
    if kind == LOOP and len(trees) > 2:
        return join(LOOP, [trees[0], join(CHOICE, trees[1:])])
    return join(kind, trees)


def _cut(log: Log, of: Graph, noise: float) -> tuple[int, list[Log]] | None:
    """A cut of the whole graph, else one of the graph without rare edges, and the pieces of the log."""
    found = _parts(of, noise)
    if found is None:
        return None
    kind, parts = found
    part_of = {of.symbols[at]: p for p, part in enumerate(parts) for at in part.tolist()}
    split = {CHOICE: _split_choice, SEQUENCE: _split_sequence, PARALLEL: _split_parallel, LOOP: _split_loop}[kind]
    logs: list[dict[tuple[int, ...], int]] = [{} for _ in parts]
    for trace, count in log.items():
        for p, piece in split(trace, part_of, len(parts)):
            logs[p][piece] = logs[p].get(piece, 0) + count
    return kind, list(logs)


def _parts(of: Graph, noise: float) -> tuple[int, Parts] | None:
    found = find(of)
    return find(of.filtered(noise)) if found is None and noise > 0 else found


Pieces = Iterable[tuple[int, tuple[int, ...]]]


def _split_choice(trace: tuple[int, ...], part_of: dict[int, int], parts: int) -> Pieces:
    """The whole trace for the part that most of it belongs to."""
    shares = np.bincount([part_of[symbol] for symbol in trace], minlength=parts)
    best = int(shares.argmax())
    yield best, tuple(symbol for symbol in trace if part_of[symbol] == best)


def _split_sequence(trace: tuple[int, ...], part_of: dict[int, int], parts: int) -> Pieces:
    """One piece a part; of a trace in another order the most symbols that are in order stay."""
    order = [part_of[symbol] for symbol in trace]
    kept = range(len(trace)) if sorted(order) == order else _longest_rising(order)
    pieces: list[list[int]] = [[] for _ in range(parts)]
    for at in kept:
        pieces[order[at]].append(trace[at])
    return ((p, tuple(piece)) for p, piece in enumerate(pieces))


def _split_parallel(trace: tuple[int, ...], part_of: dict[int, int], parts: int) -> Pieces:
    pieces: list[list[int]] = [[] for _ in range(parts)]
    for symbol in trace:
        pieces[part_of[symbol]].append(symbol)
    return ((p, tuple(piece)) for p, piece in enumerate(pieces))


def _split_loop(trace: tuple[int, ...], part_of: dict[int, int], parts: int) -> Pieces:
    """Runs of one part; where two ways back meet, or one begins or ends the trace, nothing was done between."""
    run: list[int] = []
    now = 0
    for symbol in trace:
        part = part_of[symbol]
        if part != now:
            yield now, tuple(run)
            if part and now:
                yield 0, ()
            run, now = [], part
        run.append(symbol)
    yield now, tuple(run)
    if now:
        yield 0, ()


def _longest_rising(order: list[int]) -> list[int]:
    """Places of a longest subsequence that never falls; of several, one whose parts begin early."""
    tails: list[int] = []  # negated, for the search runs from the end
    ends: list[int] = []
    after: list[int] = []
    for at in range(len(order) - 1, -1, -1):
        n = bisect_right(tails, -order[at])
        after.append(ends[n - 1] if n else -1)
        tails[n : n + 1], ends[n : n + 1] = [-order[at]], [at]
    kept = []
    at = ends[-1] if ends else -1
    while at >= 0:
        kept.append(at)
        at = after[len(order) - 1 - at]
    return kept


def _project(log: Log, keep: set[int]) -> Log:
    out: dict[tuple[int, ...], int] = {}
    for trace, count in log.items():
        piece = tuple(symbol for symbol in trace if symbol in keep)
        out[piece] = out.get(piece, 0) + count
    return out


def _once(log: Log, of: Graph) -> int | None:
    """The first symbol that stands exactly once in each trace."""
    for symbol in of.symbols:
        if all(trace.count(symbol) == 1 for trace in log):
            return symbol
    return None


def _concurrent(log: Log, of: Graph, noise: float) -> int | None:
    """The first symbol without which the log has a cut."""
    if len(of.symbols) ** 3 > TRIES:
        return None
    between = bridges(log, of)
    for at in range(len(of.symbols)):
        if _parts(of.without(at, between), noise) is not None:
            return of.symbols[at]
    return None


def _again(log: Log, of: Graph, noise: float, depth: int) -> Tree:
    """A loop with nothing on the way back where traces start again, else the flower."""
    starts = {of.symbols[at] for at in np.flatnonzero(of.starts_A)}
    ends = {of.symbols[at] for at in np.flatnonzero(of.ends_A)}
    for after in (ends, set(of.symbols)):
        pieces: dict[tuple[int, ...], int] = {}
        for trace, count in log.items():
            begin = 0
            for at in range(1, len(trace) + 1):
                if at == len(trace) or (trace[at] in starts and trace[at - 1] in after):
                    piece = trace[begin:at]
                    pieces[piece] = pieces.get(piece, 0) + count
                    begin = at
        if sum(pieces.values()) > sum(log.values()):
            return join(LOOP, [mine(pieces, noise, depth + 1), TAU])
    return flower(of.symbols)
