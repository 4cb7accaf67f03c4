"""Sequences: an Arrow table with one row a sequence, in memory or mapped from a file.

id        string                     name of the sequence, kept to the end
sequence  large_string               kind "text" (DNA and proteins too)
          large_list<dictionary>     kind "symbols" (events, items, words)
          large_list<double>, or of fixed-size lists of doubles             kind "values"
time      large_list<timestamp[us]> or large_list<double>, one a symbol, or one for all of them      optional
label, group   string                                                       optional
row       int64                      first row of the sequence in its source, from 1
opens, closes  bool                  False where a part of a longer sequence begins or ends    optional
channel:NAME   large_list            another column of the events, one value a symbol           optional
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from seqloom.core.errors import DataError, mend_os_error
from seqloom.core.files import replacing
from seqloom.data.columns import Alphabet, Kind
from seqloom.data.ragged import Ragged

if TYPE_CHECKING:
    import pyarrow as pa

CHANNEL = "channel:"
_META = b"seqloom"
_OPTIONAL = ("label", "group", "time", "opens", "closes")


class Sequences:
    """Sequences of one kind with what belongs to each: id, times, label, group, channels."""

    def __init__(
        self,
        table: "pa.Table",
        kind: Kind,
        *,
        source: str = "",
        alphabet: Alphabet = "text",
        notes: Iterable[str] = (),
        value_names: Iterable[str] = (),
    ) -> None:
        """Keep a table without copying it.

        Args:
            table: Columns as in the module's docstring.
            kind: What the sequences are made of.
            source: Where they come from, for messages.
            alphabet: What they look like, a hint for tokenizers.
            notes: Guesses that were made on the way, in plain sentences.
            value_names: Names of the channels of kind "values", where they have any.
        """
        self.table, self.kind, self.source, self.alphabet, self.notes = table, kind, source, alphabet, tuple(notes)
        self.value_names = tuple(value_names)
        self._edges: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, items: Any, *, ids: Any = None, labels: Any = None, groups: Any = None, times: Any = None) -> Self:
        """Make sequences of Python values: strings, lists of symbols, arrays of numbers.

        Integers become symbols by their decimal digits; floating-point arrays become values.
        """
        from seqloom.data import _build

        column, kind = _build.sequence_column(items)
        extra = {"label": _build.strings(labels), "group": _build.strings(groups), "time": _build.times(times)}
        table = _build.table(column, ids=_build.strings(ids), columns=extra)
        return cls(table, kind, source="memory", alphabet=_build.alphabet_of(column, kind))

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"Sequences({len(self)} of {self.kind}, {self.alphabet}, {self.source or 'no source'})"

    @property
    def ids(self) -> list[str]:
        """Names, in order."""
        return self.table["id"].to_pylist()

    @property
    def labels(self) -> list[str] | None:
        """Class of each sequence, where there is one."""
        return self._optional("label")

    @property
    def groups(self) -> list[str] | None:
        """What must not be torn apart by a split (a user, a patient), where there is one."""
        return self._optional("group")

    @property
    def rows(self) -> np.ndarray:
        """First row of each sequence in its source, from 1."""
        return self.table["row"].to_numpy()

    @property
    def opens(self) -> np.ndarray:
        """False where a sequence is a later part of a longer one."""
        return self._flag("opens")

    @property
    def closes(self) -> np.ndarray:
        """False where a sequence goes on behind its last symbol."""
        return self._flag("closes")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the other event columns."""
        return tuple(name.removeprefix(CHANNEL) for name in self.table.column_names if name.startswith(CHANNEL))

    @property
    def lengths(self) -> np.ndarray:
        """Symbols of each sequence: characters for text, events, or time steps."""
        import pyarrow.compute as pc

        column = self.table["sequence"]
        measure = pc.utf8_length if self.kind == "text" else pc.list_value_length
        return measure(column).to_numpy().astype(np.int64)

    def with_edges(self, first: np.ndarray, last: np.ndarray) -> "Sequences":
        """The same sequences with the times of their first and last events, so that nobody looks for them again."""
        known = self._with(self.table)
        known._edges = {0: first, -1: last}
        return known

    @property
    def start_times(self) -> np.ndarray | None:
        """Time of each sequence's first event, datetime64[us] or float64; a missing one is NaT or NaN."""
        return self._edge_times(0)

    @property
    def end_times(self) -> np.ndarray | None:
        """Time of each sequence's last event."""
        return self._edge_times(-1)

    def pieces(self) -> Iterator["Sequences"]:
        """Consecutive parts whose columns are one block of memory each: what tokenizers go through."""
        for batch in self.table.to_batches():
            yield self._with(_table_of(batch))

    def bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """Text as UTF-8: uint8 of all sequences end to end and int64 offsets; a view where the table is one block."""
        from seqloom.data import _build

        parts = [_build.text_bytes(part.table["sequence"].chunk(0)) for part in self.pieces()]
        joined = Ragged.join([Ragged(*part) for part in parts]) if parts else Ragged.of([], np.uint8)
        return joined.values, joined.offsets

    def symbols(self) -> tuple[Ragged, list[str]]:
        """Codes of the events, int32, and the symbol that each code stands for."""
        from seqloom.data import _build

        return _build.codes(self.table["sequence"])

    def values(self) -> Ragged:
        """Real values of each sequence, float64: (length,), or (length, C) where there are several channels."""
        from seqloom.data import _build

        return _build.numbers(self.table["sequence"])

    def channel(self, name: str) -> Ragged:
        """Another event column: float64 numbers, or int32 codes where it holds strings (see ``channel_symbols``)."""
        from seqloom.data import _build

        column = self.table[CHANNEL + name]
        return _build.codes(column)[0] if _build.is_coded(column) else _build.numbers(column)

    def channel_symbols(self, name: str) -> list[str] | None:
        """The strings that the codes of a channel stand for; None for numbers."""
        from seqloom.data import _build

        column = self.table[CHANNEL + name]
        return _build.codes(column)[1] if _build.is_coded(column) else None

    def times(self) -> Ragged | None:
        """Time of every event, int64 microseconds or float64."""
        from seqloom.data import _build

        return _build.numbers(self.table["time"]) if "time" in self.table.column_names else None

    def sequence(self, index: int) -> Any:
        """One sequence: a string, a list of symbols, or an array."""
        item = self.table["sequence"][index].as_py()
        return np.asarray(item, np.float64) if self.kind == "values" else item

    def select(self, indices: Any) -> "Sequences":
        """The sequences at ``indices`` (numbers or a mask), in that order."""
        from seqloom.data import _mapped

        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        neighbours = len(indices) > 0 and bool((np.diff(indices) == 1).all())
        table = self.table.slice(int(indices[0]), len(indices)) if neighbours else _mapped.take(self.table, indices)
        return self._with(table)

    def cut(self, starts: Any, stops: Any) -> "Sequences":
        """One part [start, stop) of each sequence, counted in symbols; parts know that they do not open or close."""
        from seqloom.data import _build

        starts, stops = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
        lengths = self.lengths
        table = _build.cut(self.table, self.kind, starts, stops, lengths)
        table = _build.put(table, "opens", self.opens & (starts == 0))
        return self._with(_build.put(table, "closes", self.closes & (stops >= lengths)))

    def named(self, ids: Sequence[str]) -> "Sequences":
        """The same sequences under other ids."""
        from seqloom.data import _build

        return self._with(_build.put(self.table, "id", list(ids)))

    def without(self, channel: str) -> "Sequences":
        """The same sequences without another event column, which they need not have."""
        name = CHANNEL + channel
        return self._with(self.table.drop_columns([name])) if name in self.table.column_names else self

    @classmethod
    def join(cls, parts: Sequence["Sequences"]) -> "Sequences":
        """Sequences of one kind, one after another; the first part's source is kept, all notes once.

        Labels, groups and times that a part lacks are missing there; channels that differ are left out.
        """
        import pyarrow as pa

        first = parts[0]
        if len(parts) == 1:
            return first  # type: ignore[return-value]
        if any(part.kind != first.kind for part in parts):
            kinds = " and ".join(sorted({part.kind for part in parts}))
            raise DataError(f"{kinds} cannot be joined", file=first.source)
        kept = [name for name in first.table.column_names if _everywhere(name, parts)]
        others = dict.fromkeys(name for part in parts for name in part.table.column_names if name in _OPTIONAL)
        kept += [name for name in others if name not in kept]
        tables = [part.table.select([name for name in kept if name in part.table.column_names]) for part in parts]
        table = pa.concat_tables(tables, promote_options="default")
        alphabets = {part.alphabet for part in parts}
        alphabet = first.alphabet if len(alphabets) == 1 else "protein" if alphabets <= {"dna", "protein"} else "text"
        notes = dict.fromkeys(note for part in parts for note in part.notes)
        names = first.value_names
        return cls(table, first.kind, source=first.source, alphabet=alphabet, notes=notes, value_names=names)

    def save(self, path: str | Path) -> None:
        """Write an Arrow IPC file that ``open`` maps into memory; an earlier file is replaced once all is written."""
        import pyarrow as pa

        meta = {"kind": self.kind, "source": self.source, "alphabet": self.alphabet, "notes": list(self.notes)}
        meta["value_names"] = list(self.value_names)
        table = self.table.replace_schema_metadata({_META: json.dumps(meta).encode()})
        file = replacing(Path(path))  # beside its place: these very sequences may be mapped from path
        with file as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.unify_dictionaries())

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map a file that ``save`` wrote: nothing is read before it is used."""
        import pyarrow as pa

        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            meta = json.loads((table.schema.metadata or {})[_META])
        except OSError as error:
            raise mend_os_error(error, path) from error
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise DataError(
                "is no Arrow file written by seqloom", file=path, mend="Read the original again."
            ) from error
        known = {name: meta[name] for name in ("source", "alphabet", "notes", "value_names") if name in meta}
        return cls(table, meta["kind"], **known)

    def _with(self, table: "pa.Table") -> "Sequences":
        known: dict[str, Any] = {name: getattr(self, name) for name in ("source", "alphabet", "notes", "value_names")}
        return Sequences(table, self.kind, **known)

    def _optional(self, name: str) -> list[str] | None:
        return self.table[name].to_pylist() if name in self.table.column_names else None

    def _flag(self, name: str) -> np.ndarray:
        present = name in self.table.column_names
        return self.table[name].fill_null(True).to_numpy() if present else np.ones(len(self), bool)

    def _edge_times(self, at: Literal[0, -1]) -> np.ndarray | None:
        from seqloom.data import _build

        if at in self._edges:
            return self._edges[at]
        times = self.times()
        if times is None:
            return None
        stamped = not _is_number(self.table["time"])
        edge = np.full(len(self), _build.NAT if stamped else np.nan, dtype=times.values.dtype)
        filled = times.lengths > 0
        edge[filled] = times.values[(times.offsets[1:] - 1 if at else times.offsets[:-1])[filled]]
        self._edges[at] = edge.view("datetime64[us]") if stamped else edge
        return self._edges[at]


def _everywhere(name: str, parts: Sequence[Sequences]) -> bool:
    """True where every part has a column, of one type."""
    types = {str(part.table[name].type) if name in part.table.column_names else "" for part in parts}
    return len(types) == 1


def _table_of(batch: "pa.RecordBatch") -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _is_number(column: "pa.ChunkedArray") -> bool:
    import pyarrow as pa

    return pa.types.is_floating(column.type.value_type)
