"""RecBole's atomic files: tables with tabs whose header says what each column holds.

user_id:token  item_id:token  timestamp:float    .inter: one row is one interaction, a user's are one sequence by time
item_id:token  title:token_seq                   .item, .user: one row is one sequence of words with spaces between them

A type is ``token``, ``token_seq``, ``float`` or ``float_seq``. Columns are called by their names without the type.
Source: Zhao et al., "RecBole: towards a unified, comprehensive and efficient framework for recommendation algorithms",
2021, arXiv:2011.01731, and "Atomic files" in its documentation.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seqloom.core.errors import DataError
from seqloom.core.files import replacing
from seqloom.data._source import BOM, Source
from seqloom.data.columns import FLAGS, Columns, Guess
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.readers._named import absent, parts_of
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    import polars as pl

_SUFFIXES = (".inter", ".item", ".user")
_FIELD = re.compile(r'([^\t":]+):(token_seq|token|float_seq|float)')


class Recbole(Reader):
    """Interactions become one sequence of items a user; items and users become sequences of words."""

    def sniff(self, source: Source) -> float:
        """A header in which every field has a type; the ending of the name alone leaves room for doubt."""
        if all(_FIELD.fullmatch(field) for field in _fields(source)):
            return 1.0
        return 0.9 if source.suffix in _SUFFIXES else 0.0

    def guess(self, source: Source, columns: Columns) -> Guess:
        """By the types and names of the header; the rows are not looked at."""
        source.check_text()
        types = _types(source)
        of_users = columns.case is not None or _is_interactions(source, types)
        self.refuse(source, columns, but=("case" if of_users else "id", "event", "time", "label", "group", "inputs"))
        for role in ("case", "event", "time", "label", "group", "id"):
            for name in parts_of(getattr(columns, role), types):
                if name not in types:
                    mend = f"The columns are {', '.join(types)}."
                    raise DataError(absent("column", name, role), file=source.name, row=1, mend=mend)
        columns, notes = (_of_interactions if of_users else _of_rows)(source, columns, types)
        task = "classify" if columns.label else "next"
        return Guess(reader="recbole", columns=columns, kind="symbols", task=task, notes=tuple(notes))

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """One batch: the interactions of a user may stand anywhere."""
        from seqloom.data.readers import _events

        guess, types = self.guess(source, columns), _types(source)
        frame = _frame(source, types)
        if not guess.columns.case:
            frame = _with_words(frame, guess.columns.event or "", types)
        yield _events.sequences_of(frame, guess, source.name, 2)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """Interactions: ``user_id, item_id, timestamp`` (in seconds), then label, group and channels."""
        import polars as pl

        from seqloom.data.readers.table import _frame_of

        if sequences.kind != "symbols" or not sequences.lengths.all():
            raise DataError("only sequences of symbols, none of them empty, can be interactions", file=path)
        frame = _frame_of(sequences).rename({"case": "user_id", "event": "item_id"})
        if "time" in frame.columns:
            time = frame["time"]
            seconds = time.dt.epoch("us") / 1e6 if isinstance(time.dtype, pl.Datetime) else time
            frame = frame.with_columns(seconds.alias("time")).rename({"time": "timestamp"})
        typed = {name: f"{name}:{'float' if frame[name].dtype.is_numeric() else 'token'}" for name in frame.columns}
        with replacing(Path(path)) as part:
            frame.rename(typed).write_csv(part, separator="\t")


def _fields(source: Source) -> list[str]:
    line = source.head.removeprefix(BOM).split(b"\n", 1)[0].removesuffix(b"\r")
    return line.decode("utf-8", "replace").split("\t")


def _types(source: Source) -> dict[str, str]:
    """Type of each column by its name."""
    types: dict[str, str] = {}
    for field in _fields(source):
        found = _FIELD.fullmatch(field)
        if found is None:
            mend = "Write every column as name:token, name:token_seq, name:float or name:float_seq, with tabs between."
            raise DataError("a column of the header has no type", file=source.name, row=1, value=field, mend=mend)
        if found[1] in types:
            raise DataError("two columns have one name", file=source.name, row=1, value=found[1], mend="Rename one.")
        types[found[1]] = found[2]
    return types


def _is_interactions(source: Source, types: dict[str, str]) -> bool:
    if source.suffix in _SUFFIXES:
        return source.suffix == ".inter"
    return bool(_tokens(types, "user", "session") and _tokens(types, "item"))


def _tokens(types: dict[str, str], *words: str) -> list[str]:
    """Columns of single tokens whose name has one of the words in it."""
    return [name for name, kind in types.items() if kind == "token" and any(word in name.casefold() for word in words)]


def _of_interactions(source: Source, columns: Columns, types: dict[str, str]) -> tuple[Columns, list[str]]:
    """User, item and time, each the first column whose name says so."""
    notes = ["one row is one interaction"]
    if not columns.case:
        columns = replace(columns, case=_first(_tokens(types, "user", "session"), "case", source, types))
        notes.append(f"column {columns.case!r} names the sequence of an interaction (--case chooses another)")
    if not columns.event:
        free = [name for name in _tokens(types, "") if name not in _taken(columns, types)]
        items = [name for name in free if "item" in name.casefold()] or (free if len(free) == 1 else [])
        columns = replace(columns, event=_first(items, "event", source, types))
        notes.append(f"column {columns.event!r} is the symbol (--event chooses another)")
    if not columns.time:
        clocks = [name for name, kind in types.items() if kind == "float" and "time" in name.casefold()]
        clocks = [name for name in clocks if name not in _taken(columns, types)]
        columns = replace(columns, time=clocks[0] if clocks else None)
        told = f"column {columns.time!r} is the time (--time chooses another)"
        notes.append(told if clocks else "no column of times: interactions keep the order of the file (--time)")
    others = [name for name in types if name not in _taken(columns, types)]
    if others:
        notes.append(f"other columns are kept as channels of the interactions: {', '.join(others[:8])}")
    return columns, notes


def _of_rows(source: Source, columns: Columns, types: dict[str, str]) -> tuple[Columns, list[str]]:
    """The words of a row, and its name in the first column."""
    notes = ["one row is one sequence"]
    first = next(iter(types))
    if not columns.event:
        words = [name for name, kind in types.items() if kind == "token_seq" and name not in _taken(columns, types)]
        tokens = [name for name in _tokens(types, "") if name != first and name not in _taken(columns, types)]
        words = words or (tokens if len(tokens) == 1 else [])
        only = [first] if len(types) == 1 else []
        columns = replace(columns, event=",".join(words) if words else _first(only, "event", source, types))
        notes.append(f"its symbols are the words of {columns.event} (--event chooses other columns)")
    if not columns.id and types[first] == "token" and first not in _taken(columns, types):
        columns = replace(columns, id=first)
        notes.append(f"column {first!r} names the sequences (--id chooses another)")
    unused = [name for name in types if name not in _taken(columns, types)]
    if unused:
        notes.append(f"columns that are not used: {', '.join(unused[:8])}")
    return columns, notes


def _first(names: list[str], role: str, source: Source, types: dict[str, str]) -> str:
    if names:
        return names[0]
    mend = f"Choose one with {FLAGS[role]}: {', '.join(types)}."
    raise DataError(f"no column is clearly the {role}", file=source.name, row=1, mend=mend)


def _taken(columns: Columns, types: dict[str, str]) -> set[str]:
    roles = ("case", "event", "time", "label", "group", "id")
    return {name for role in roles for name in parts_of(getattr(columns, role), types)}


def _frame(source: Source, types: dict[str, str]) -> "pl.DataFrame":
    """All rows: floats as numbers, everything else as it stands."""
    import polars as pl

    from seqloom.data.readers import _blocks, _frames

    frame = _frames.separated(source, "\t")
    try:
        frame.columns = list(types)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise _frames.csv_error(source, "\t", error) from error
    frame = _blocks.without_blank_ends(frame)
    if not frame.height:
        raise DataError("has a header but no rows", file=source.name, row=1, mend="Check how it was made.")
    return frame.with_columns(_numbers(frame[name], source) for name, kind in types.items() if kind == "float")


def _numbers(series: "pl.Series", source: Source) -> "pl.Series":
    import polars as pl

    numbers = series.str.strip_chars().cast(pl.Float64, strict=False)
    bad = numbers.is_null() & series.is_not_null()
    if bad.any():
        at = int(bad.arg_max() or 0)
        problem, mend = f"the column {series.name!r} holds floats, and this is none", "Mend it or delete the row."
        raise DataError(problem, file=source.name, row=2 + at, value=series[at], mend=mend)
    return numbers


def _with_words(frame: "pl.DataFrame", name: str, types: dict[str, str]) -> "pl.DataFrame":
    """The frame with a list of words under ``name``, which may be several columns; a token is one word."""
    import polars as pl

    parts = [
        pl.col(part).cast(pl.String).fill_null("").str.extract_all("[^ ]+" if "seq" in types[part] else "(?s).+")
        for part in parts_of(name, types)
    ]
    return frame.with_columns(pl.concat_list(parts).alias(name))
