"""Which column of a file means what, and what was guessed about a file."""

from dataclasses import dataclass
from typing import Literal

from seqloom.core.component import Value

Kind = Literal["text", "symbols", "values"]
Alphabet = Literal["text", "dna", "protein", "events", "values"]
FLAGS = {
    "case": "--case",
    "event": "--event",
    "time": "--time",
    "label": "--label",
    "group": "--group",
    "text": "--text",
    "id": "--id",
    "value": "--value",
    "inputs": "--inputs",
    "stream": "--stream",
}
ROLES = tuple(role for role in FLAGS if role not in ("inputs", "stream"))
"""Roles that use a column up: what has one of them is no further channel."""


@dataclass(frozen=True, kw_only=True)
class Columns(Value):
    """Columns by name; what is None is guessed, and every guess is told. Several columns: ``"user,session"``."""

    case: str | None = None
    """Names the sequence that a row (an event) belongs to."""
    event: str | None = None
    """The symbol of a row; without ``case``, one row is one sequence of symbols with spaces between them."""
    time: str | None = None
    """When the event happened: orders the events, and the split."""
    label: str | None = None
    """The class of the whole sequence."""
    group: str | None = None
    """What must not be torn apart by the split, such as a patient."""
    text: str | None = None
    """One row is one sequence: its characters."""
    id: str | None = None
    """Names the sequence where one row is one."""
    value: str | None = None
    """The numbers that a sequence consists of, one channel a column: a time series instead of symbols."""
    inputs: str | None = None
    """Further columns that a network reads beside each symbol: names, ``gap`` (time since the event before),
    ``elapsed`` (since the first one), or ``all`` columns and ``gap``."""
    stream: bool = False
    """Read a text file as one long sequence, line ends included."""


@dataclass(frozen=True, kw_only=True)
class Guess(Value):
    """What a file seems to be."""

    reader: str
    """Name of the reader."""
    columns: Columns
    """Given and guessed columns together."""
    kind: Kind
    """What the sequences are made of."""
    task: Literal["next", "classify"] = "next"
    """What is likely to be asked."""
    notes: tuple[str, ...] = ()
    """Every guess as a sentence with the flag that overrides it."""
