"""Which column means what: by name, else by elimination; where two fit, the user is asked."""

from dataclasses import replace
from typing import Any

import polars as pl

from seqloom.core.errors import DataError
from seqloom.data.columns import FLAGS, ROLES, Columns, Guess

_PEOPLE = ("session", "sessionid", "user", "userid", "customer", "customerid", "patient", "patientid", "visitor", "uid")
_THINGS = ("orderid", "ticketid", "visitid", "incidentid", "jobid", "runid")
_OBJECTS = ("item", "itemid", "token", "symbol", "state", "page", "product", "productid", "code", "url")
_DAYS = ("date", "day", "starttime", "createdat", "ds", "at", "when", "occurredat", "eventdate")

# Names by meaning, the surest first. Letters only, so that "Case ID", "case_id" and "case:id" are one name.
NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "case": (
        ("case", "caseid", "caseconceptname", "trace", "traceid", "sequenceid", "seqid"),
        (*_PEOPLE, *_THINGS),
    ),
    "event": (
        ("event", "activity", "conceptname", "eventname", "activityname", "action", "eventtype"),
        (*_OBJECTS, "status", "stage", "operation", "command", "screen"),
    ),
    "time": (
        ("time", "timestamp", "timetimestamp", "datetime", "eventtime", "completetimestamp", "ts"),
        (*_DAYS, "step", "order", "position"),
    ),
    "label": (("label", "class", "target", "outcome", "category"),),
    "text": (
        ("text", "sequence", "seq", "sentence", "document", "content", "dna", "protein", "string", "smiles"),
        ("review", "comment", "message", "body"),
    ),
    "list": (("events", "items", "tokens", "symbols", "activities", "words", "history", "path", "trace"),),
    "id": (("id", "name", "key", "accession", "index"), ("reviewid", "documentid", "docid", "recordid", "rowid")),
}


def guess(frame: pl.DataFrame, given: Columns, source: str) -> Guess:
    """Complete the columns that are given; the frame may be the head of a table."""
    for role in ROLES:
        for name in columns_of(getattr(given, role), frame):
            if name not in frame.columns:
                problem = f"there is no column {name!r} (asked for by {FLAGS[role]})"
                raise DataError(problem, file=source, row=1, mend=f"The columns are {_listing(frame)}.")
    named = {role: _by_name(frame, role, given) for role in NAMES}
    if given.text or (given.event and not given.case and not named["case"]):
        return _rows(frame, given, named)
    if given.case or (named["case"] and (given.event or named["event"])):
        return _events(frame, given, named, source)
    if given.event or named["list"] or named["text"] or frame.width == 1:
        return _rows(frame, given, named)
    if named["case"]:
        return _events(frame, given, named, source)
    raise DataError(
        "it is not clear which column is what",
        file=source,
        row=1,
        mend=f"Say --case and --event (one event a row), or --text (one sequence a row); "
        f"the columns are {_listing(frame)}.",
    )


def columns_of(name: str | None, frame: pl.DataFrame) -> list[str]:
    """The column of a name, or the columns of ``"a,b"``."""
    if name is None:
        return []
    return [name] if name in frame.columns or "," not in name else [part.strip() for part in name.split(",")]


def _events(frame: pl.DataFrame, given: Columns, named: dict[str, list[str]], source: str) -> Guess:
    """One row is one event."""
    columns, notes = given, ["one row is one event"]
    for role in ("case", "event", "time", "label"):
        if getattr(columns, role):
            continue
        free = [name for name in named[role] if name not in _taken(columns, frame)]
        if role == "event" and not free:
            free = [
                name for name in frame.columns if name not in {*_taken(columns, frame), *named["time"], *named["label"]}
            ]
            free = [name for name in free if not _numeric(frame[name])] or free
        if len(free) > 1 or (not free and role in ("case", "event")):
            raise _ambiguous(frame, role, free, source)
        if free:
            columns = _with(columns, role, free[0])
            notes.append(_note(role, free[0]))
    others = [name for name in frame.columns if name not in _taken(columns, frame)]
    if others:
        notes.append(f"other columns are kept as channels of the events: {', '.join(others[:8])}")
    if not columns.time:
        notes.append("no time column: events keep the order of the file (--time orders them and the split)")
    task = "classify" if columns.label else "next"
    return Guess(reader="table", columns=columns, kind="symbols", task=task, notes=tuple(notes))


def _rows(frame: pl.DataFrame, given: Columns, named: dict[str, list[str]]) -> Guess:
    """One row is one sequence."""
    columns, notes = given, ["one row is one sequence"]
    if not given.text and not given.event:
        lists = named["list"] or [name for name in named["text"] if _holds_symbols(frame[name])]
        free = lists or named["text"] or frame.columns[:1]
        if len(free) > 1:
            raise _ambiguous(frame, "text", free, "")
        role = "event" if lists else "text"
        columns = _with(columns, role, free[0])
        inside = isinstance(frame[free[0]].dtype, pl.List)
        told = "text" if not lists else "lists of symbols" if inside else "symbols with spaces between them"
        other = FLAGS["text" if lists else "event"]
        overrides = "" if inside else f" ({other} {free[0]} reads it the other way)"
        notes.append(f"column {free[0]!r} holds {told}{overrides}")
    for role in ("id", "label", "time"):
        free = [name for name in named[role] if name not in _taken(columns, frame)]
        if not getattr(columns, role) and len(free) == 1:
            columns = _with(columns, role, free[0])
            notes.append(_note(role, free[0]))
    unused = [name for name in frame.columns if name not in _taken(columns, frame)]
    if unused:
        notes.append(f"columns that are not used: {', '.join(unused[:8])}")
    kind = "symbols" if columns.event else "text"
    task = "classify" if columns.label else "next"
    return Guess(reader="table", columns=columns, kind=kind, task=task, notes=tuple(notes))


def _with(columns: Columns, role: str, name: str) -> Columns:
    chosen: dict[str, Any] = {role: name}
    return replace(columns, **chosen)


def _by_name(frame: pl.DataFrame, role: str, given: Columns) -> list[str]:
    """Columns whose name says that they have a role: those of the surest names that occur."""
    taken = _taken(given, frame)
    for names in NAMES[role]:
        found = [column for column in frame.columns if _letters(column) in names and column not in taken]
        if found:
            return found
    return []


def _taken(columns: Columns, frame: pl.DataFrame) -> set[str]:
    return {name for role in ROLES for name in columns_of(getattr(columns, role), frame)}


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _numeric(series: pl.Series) -> bool:
    if series.dtype != pl.String:
        return series.dtype.is_numeric()
    return series.drop_nulls().cast(pl.Float64, strict=False).null_count() == 0


def _holds_symbols(series: pl.Series) -> bool:
    """True where most cells of a column called ``sequence`` are lists, or short codes with spaces between them."""
    if isinstance(series.dtype, pl.List):
        return True
    if series.dtype != pl.String or _letters(series.name) not in ("sequence", "seq"):
        return False
    cells = series.drop_nulls().head(200)
    spaced = int(cells.str.contains(r"\S\s+\S").sum())
    return 2 * spaced > len(cells) and not cells.str.contains(r"[.,;!?]\s").any()


def _ambiguous(frame: pl.DataFrame, role: str, found: list[str], source: str) -> DataError:
    flag = FLAGS[role]
    if not found:
        problem, mend = f"no column is clearly the {role}", f"Choose one with {flag}: {_listing(frame)}."
    else:
        problem = f"{len(found)} columns could be the {role}: {', '.join(found)}"
        mend = "Choose one: " + ", or ".join(f"{flag} {name}" for name in found) + "."
    return DataError(problem, file=source or None, row=1 if source else None, mend=mend)


def _listing(frame: pl.DataFrame) -> str:
    """Names of the columns, each with its first value."""
    shown = [f"{name} ({_shown(frame[name])})" for name in frame.columns[:12]]
    return ", ".join(shown) + (f" and {frame.width - 12} more" if frame.width > 12 else "")


def _shown(series: pl.Series) -> str:
    first: Any = series.drop_nulls().head(1).to_list()
    text = str(first[0]) if first else "empty"
    return text if len(text) <= 20 else text[:19] + "…"


def _note(role: str, name: str) -> str:
    meaning = {
        "case": "names the sequence of an event",
        "event": "is the event",
        "time": "is the time",
        "label": "is the class of a sequence",
        "id": "names the sequences",
    }[role]
    return f"column {name!r} {meaning} ({FLAGS[role]} chooses another)"
