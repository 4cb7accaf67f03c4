"""Tables: event logs (one row an event) and one sequence a row, as CSV, TSV, Parquet or JSON lines.

case, activity, timestamp, ...    rows are grouped by case and sorted by time, stably; other columns become channels
id, text, label                   one row is one sequence of characters
id, events, label                 one row is one sequence of symbols, with spaces between them or as a JSON list
id, label, [{activity, time}]     a JSON list of objects: each of them is one event
unique_id, ds, y                  one row is one step of a time series; date, a, b, c: of one with several channels
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqloom.core.errors import DataError
from seqloom.core.files import replacing
from seqloom.data._source import Source
from seqloom.data.columns import FLAGS, Columns, Guess
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    import polars as pl

_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".jsonl", ".ndjson")


class Table(Reader):
    """Tables of any of the four forms; which column means what is guessed from names unless it is said."""

    def sniff(self, source: Source) -> float:
        """Magic bytes, the ending of the name, or columns that every line has."""
        from seqloom.data.readers._frames import form_of

        form = form_of(source)
        if form in ("parquet", "jsonl", "json"):
            return 1.0
        if source.suffix in _SUFFIXES:
            return 0.95
        return 0.0 if form is None or source.head[:1] in (b">", b"@") else 0.5

    def guess(self, source: Source, columns: Columns) -> Guess:
        """Names of the columns, and their first values."""
        self.refuse(source, columns, but=tuple(role for role in FLAGS if role != "stream"))
        from seqloom.data.readers import _frames, _nested

        return _nested.flat(_frames.load(source, head=True)[0], columns, source.name).guess(source.name)

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """One batch of events: the rows of a case may stand anywhere. What is larger than ``block`` waits on disk."""
        from seqloom.data.readers import _blocks, _frames

        form = _frames.known_form(source)
        if form != "json" and _blocks.unpacked_size(source, form) > block:
            from seqloom.data.readers import _streamed

            parts = _streamed.sequences_of(source, form, columns, block)
            if parts is not None:
                yield from parts
                return
        frame, first_row, form = _frames.load(source)
        yield self.of_frame(frame, columns, source=source.name, first_row=first_row, blank=len(form) == 1)

    def of_frame(
        self, frame: "pl.DataFrame", columns: Columns, *, source: str, first_row: int = 1, blank: bool = False
    ) -> Sequences:
        """Sequences of a polars frame. ``blank`` allows rows without any value: empty lines of a file."""
        from seqloom.data.readers import _blocks, _nested

        if not frame.height:
            raise DataError("has no rows", file=source)
        if blank:
            frame = _blocks.without_blank_ends(frame)
        flat = _nested.flat(frame, columns, source)
        return flat.sequences(flat.guess(source), source, first_row)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """Events as ``case, event, time, label, group, channels``, text as ``id, text``; the form goes by the name."""
        frame = _frame_of(sequences)
        ending = Path(path).suffix
        with replacing(Path(path)) as part:
            if ending == ".parquet":
                frame.write_parquet(part)
            elif ending in (".jsonl", ".ndjson"):
                frame.write_ndjson(part)
            else:
                frame.write_csv(part, separator="\t" if ending == ".tsv" else ",", quote_style="non_numeric")


def _frame_of(sequences: Sequences) -> "pl.DataFrame":
    import polars as pl

    if sequences.kind == "values":
        from seqloom.data.readers import _series

        return _series.frame_of_values(sequences)
    whole = {"label": sequences.labels, "group": sequences.groups}
    if sequences.kind == "text":
        texts = [sequences.sequence(i) for i in range(len(sequences))]
        return pl.DataFrame({"id": sequences.ids, "text": texts, **{k: v for k, v in whole.items() if v is not None}})
    codes, symbols = sequences.symbols()
    case = np.repeat(np.arange(len(sequences)), codes.lengths)
    columns = {"case": _look_up(sequences.ids, case), "event": _look_up(symbols, codes.flat)}
    times = sequences.times()
    if times is not None:
        stamped = times.values.dtype == np.int64
        columns["time"] = pl.Series(times.flat.view("datetime64[us]") if stamped else times.flat)
    columns |= {name: _look_up(values, case) for name, values in whole.items() if values is not None}
    for name in sequences.channels:
        names, values = sequences.channel_symbols(name), sequences.channel(name).flat
        columns[name] = pl.Series(values) if names is None else _look_up(names, values)
    return pl.DataFrame(columns)


def _look_up(names: list[str], codes: np.ndarray) -> "pl.Series":
    import polars as pl

    return pl.Series(names, dtype=pl.String).gather(codes)
