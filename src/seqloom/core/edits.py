"""Edit distance and alignment of any two sequences of hashable symbols.

    d[i, j] = min(d[i+1, j+1] + [a_i != b_j] * substitute,  d[i+1, j] + delete,  d[i, j+1] + insert)

Of all cheapest scripts ``align`` returns the first one in the order keep, substitute, delete, insert, compared
operation by operation from the left. It is therefore unique and depends on nothing but the two sequences and the costs.

Shapes: n source length, m target length, P pairs.
Source: Wagner and Fischer, "The string-to-string correction problem", 1974, section 3 (Levenshtein, 1966).
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from seqloom.core.errors import ConfigError

Kind = Literal["keep", "substitute", "delete", "insert"]
Symbols = Sequence[Hashable] | np.ndarray | torch.Tensor

_KINDS: tuple[Kind, ...] = ("keep", "substitute", "delete", "insert")  # the codes of _edits_numba, in tie order
_NO_TABLE = np.empty((0, 0))


def _checked(price: float, name: str) -> float:
    if not price >= 0 or (name != "substitute" and math.isinf(price)):
        raise ConfigError(f"the {name} cost is {price!r}: it must be zero or more" + ", and finite" * (name[0] != "s"))
    return price


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Prices of the operations; keeping a symbol is free. Prices are zero or more, insert and delete finite."""

    insert: float | Callable[[Any], float] = 1
    """Price of writing a target symbol, or a function of that symbol."""
    delete: float | Callable[[Any], float] = 1
    """Price of dropping a source symbol, or a function of that symbol."""
    substitute: float | Callable[[Any, Any], float] = 1
    """Price of writing target over source, or a function (source, target); infinity forbids it."""

    def __post_init__(self) -> None:
        """Refuse prices for which the cheapest script is not defined."""
        for name in ("insert", "delete", "substitute"):
            price = getattr(self, name)
            if not callable(price):
                _checked(price, name)

    @property
    def constant(self) -> bool:
        """Whether no price depends on the symbols."""
        return not (callable(self.insert) or callable(self.delete) or callable(self.substitute))

    @property
    def integral(self) -> bool:
        """Whether every distance is a whole number, and is then returned as an int."""
        return all(isinstance(price, int) for price in (self.insert, self.delete, self.substitute))


UNIT = Costs()


class Operation(NamedTuple):
    """One step of a script, at source index ``source`` and target index ``target``.

    For an insert, ``source`` is the source symbol before which it happens; for a delete, ``target`` is where the next
    written symbol will stand. ``symbol`` is what is written (None for a delete).
    """

    kind: Kind
    source: int
    target: int
    symbol: Hashable


class Span(NamedTuple):
    """Replace ``source[start:end]`` by ``replacement``; ``start == end`` is an insertion before ``start``."""

    start: int
    end: int
    replacement: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Alignment:
    """A cheapest script from a source to a target, and its cost."""

    operations: tuple[Operation, ...]
    cost: float

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The (source index, target index) of every kept symbol."""
        return tuple((op.source, op.target) for op in self.operations if op.kind == "keep")

    @property
    def counts(self) -> dict[Kind, int]:
        """How often each kind of operation occurs, zeros included."""
        found = Counter(op.kind for op in self.operations)
        return {kind: found[kind] for kind in _KINDS}

    def spans(self, *, gap: int = 0) -> tuple[Span, ...]:
        """Merge the changes into spans of the source; those at most ``gap`` kept symbols apart become one."""
        spans: list[Span] = []
        kept: list[Hashable] = []  # since the last change
        for op in self.operations:
            if op.kind == "keep":
                kept.append(op.symbol)
                continue
            end = op.source + (op.kind != "insert")
            written = () if op.kind == "delete" else (op.symbol,)
            if spans and len(kept) <= gap:
                last = spans.pop()
                spans.append(Span(last.start, end, (*last.replacement, *kept, *written)))
            else:
                spans.append(Span(op.source, end, written))
            kept = []
        return tuple(spans)


def distance(a: Symbols, b: Symbols, costs: Costs = UNIT) -> float:
    """Return the cost of the cheapest script from a to b: O(n m) time, O(min(n, m)) memory for constant costs.

    Examples:
        >>> distance("kitten", "sitting")
        3
    """
    return distances([(a, b)], costs)[0].item()


def distances(pairs: Iterable[tuple[Symbols, Symbols]], costs: Costs = UNIT) -> np.ndarray:
    """Return the distance of every pair in one compiled call: int64 (P,) for whole-number costs, else float64."""
    from seqloom.core import _edits_numba as compiled

    flat = [sequence for pair in pairs for sequence in pair]
    if costs.constant:
        codes = _encode(flat)
        offsets = np.cumsum([0, *map(len, codes)])
        out_P = np.empty(len(flat) // 2)
        prices = np.array([costs.insert, costs.delete, costs.substitute], np.float64)
        compiled.constant_batch(np.concatenate([np.empty(0, np.int64), *codes]), offsets, prices, out_P)
    else:
        pairs_P = zip(map(_symbols, flat[::2]), map(_symbols, flat[1::2]), strict=True)
        out_P = np.array([compiled.weighted(*_priced(a, b, costs, table=True)) for a, b in pairs_P], np.float64)
    return out_P.astype(np.int64) if costs.integral else out_P


def align(a: Symbols, b: Symbols, costs: Costs = UNIT) -> Alignment:
    """Return the cheapest script from a to b that comes first in the tie order: O(n m) time and bytes.

    Examples:
        >>> [op.kind for op in align("abc", "axcd").operations]
        ['keep', 'substitute', 'keep', 'insert']
    """
    from seqloom.core import _edits_numba as compiled

    a, b = _symbols(a), _symbols(b)
    a_n, b_m, insert_m, delete_n, table = _priced(a, b, costs, table=callable(costs.substitute))
    substitute = 0.0 if callable(costs.substitute) else float(costs.substitute)
    cost, kinds = compiled.script(a_n, b_m, insert_m, delete_n, substitute, table)
    operations, i, j = [], 0, 0
    for code in kinds.tolist():
        kind = _KINDS[code]
        operations.append(Operation(kind, i, j, None if kind == "delete" else b[j]))
        i += kind != "insert"
        j += kind != "delete"
    return Alignment(tuple(operations), int(cost) if costs.integral else cost)


def apply(operations: Iterable[Operation], a: Symbols) -> list[Hashable]:
    """Carry out a script on a source; it must read the source from its first symbol to its last, in order."""
    source, written, at = _symbols(a), [], 0
    for op in operations:
        if op.source != at or (op.kind != "insert" and at >= len(source)):
            raise ConfigError(f"{op} does not continue at source index {at} of {len(source)}: align this source again")
        if op.kind != "delete":
            written.append(source[at] if op.kind == "keep" else op.symbol)
        at += op.kind != "insert"
    if at != len(source):
        raise ConfigError(f"the script ends at source index {at} of {len(source)}: align this source again")
    return written


def error_rate(references: Iterable[Symbols], hypotheses: Iterable[Symbols], costs: Costs = UNIT) -> float:
    """Return edits / reference symbols over the whole corpus: WER on lists of words, CER on strings.

    Without a reference symbol it is 0 where there is no edit either, else infinite.
    """
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise ConfigError("error_rate takes collections of sequences: for one pair write error_rate([a], [b])")
    references, hypotheses = list(references), list(hypotheses)
    if len(references) != len(hypotheses):
        raise ConfigError(f"{len(references)} references but {len(hypotheses)} hypotheses: give one for each")
    edits = float(distances(zip(references, hypotheses, strict=True), costs).sum())
    length = sum(len(reference) for reference in references)
    if length:
        return edits / length
    return math.inf if edits else 0.0


def _symbols(sequence: Symbols) -> Sequence[Hashable]:
    """Tensors and arrays give plain numbers: their own elements would not be equal by hash."""
    return sequence.tolist() if isinstance(sequence, np.ndarray | torch.Tensor) else sequence


def _encode(sequences: list[Symbols]) -> list[np.ndarray]:
    """Map symbols to int64 codes, equal exactly where the symbols are equal."""
    texts = [s for s in sequences if isinstance(s, str)]
    if len(texts) == len(sequences):
        return [np.frombuffer(s.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) for s in texts]
    codes: dict[Hashable, int] = {}
    return [np.fromiter((codes.setdefault(x, len(codes)) for x in _symbols(s)), np.int64, len(s)) for s in sequences]


def _priced(a: Sequence[Hashable], b: Sequence[Hashable], costs: Costs, *, table: bool) -> tuple[np.ndarray, ...]:
    """Return the codes of both, the insert and delete prices along them, and the substitution table if wanted."""
    a_n, b_m = _encode([a, b]) if not table else _encode([list(a), list(b)])  # a table wants small codes
    insert_m = _along(b, costs.insert, "insert")
    delete_n = _along(a, costs.delete, "delete")
    if not table:
        return a_n, b_m, insert_m, delete_n, _NO_TABLE
    size = int(max(a_n.max(initial=-1), b_m.max(initial=-1))) + 1
    prices = np.zeros((size, size))
    price = costs.substitute if callable(costs.substitute) else lambda _x, _y: costs.substitute
    sources, targets = dict(zip(a_n.tolist(), a, strict=True)), dict(zip(b_m.tolist(), b, strict=True))
    for x, source in sources.items():
        for y, target in targets.items():
            prices[x, y] = _checked(price(source, target), "substitute") if x != y else 0.0
    return a_n, b_m, insert_m, delete_n, prices


def _along(sequence: Sequence[Hashable], price: float | Callable[[Any], float], name: str) -> np.ndarray:
    if not callable(price):
        return np.full(len(sequence), float(price))
    return np.array([_checked(price(symbol), name) for symbol in sequence], np.float64)
