"""Which column means what: by name, else by elimination; where two fit, the user is asked."""

import re
from dataclasses import replace
from typing import Any

import polars as pl

from seqloom.core.errors import DataError
from seqloom.data.columns import FLAGS, ROLES, Columns, Guess
from seqloom.data.readers._named import absent, parts_of

_PEOPLE = ("session", "sessionid", "user", "userid", "customer", "customerid", "patient", "patientid", "visitor", "uid")
_THINGS = ("orderid", "ticketid", "visitid", "incidentid", "jobid", "runid")
_OBJECTS = ("item", "itemid", "token", "symbol", "state", "page", "product", "productid", "code", "url")
_ROW_NUMBERS = ("", "index", "unnamed0", "row", "rownumber")
_DAYS = ("date", "day", "starttime", "createdat", "ds", "at", "when", "occurredat", "eventdate")
_TWIN = re.compile(r"(.*)_duplicated_\d+", re.DOTALL)  # what polars calls the second column of one name

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
    "series": (
        ("uniqueid", "series", "seriesid", "seriesname", "sensor", "sensorid", "device", "deviceid", "station"),
        ("stationid", "meter", "meterid", "machine", "machineid", "unit", "unitid", "ticker"),
        ("item", "itemid", "id", "name", "key"),
    ),
    "value": (("y", "value", "values", "target", "measurement", "reading"),),
    "id": (("id", "name", "key", "accession", "index"), ("reviewid", "documentid", "docid", "recordid", "rowid")),
}


def guess(frame: pl.DataFrame, given: Columns, source: str) -> Guess:
    """Complete the columns that are given; the frame may be the head of a table."""
    for role in ROLES:
        for name in columns_of(getattr(given, role), frame):
            if name not in frame.columns:
                mend = f"The columns are {_listing(frame)}."
                raise DataError(absent("column", name, role), file=source, row=1, mend=mend)
    return _told_twins(_guessed(frame, given, source), frame, source)


def _guessed(frame: pl.DataFrame, given: Columns, source: str) -> Guess:
    named = {role: by_name(frame, role, given) for role in NAMES}
    if not named["case"] and surely(named["series"], "series", 2):
        named["case"] = named["series"]
    if given.value and (given.event or given.text):
        problem = f"--value and {FLAGS['event' if given.event else 'text']} exclude each other"
        raise DataError(problem, file=source, mend="Leave one of them away.")
    if (given.value or not (given.event or given.text)) and (found := _series(frame, given, named, source)):
        return found
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
        mend=f"Say --case and --event (one event a row), --text (one sequence a row) or --value (a time series); "
        f"the columns are {_listing(frame)}.",
    )


def _told_twins(found: Guess, frame: pl.DataFrame, source: str) -> Guess:
    """The guess with a word about columns of one name; which of them has a role is not for us to say."""
    notes = []
    for second in frame.columns:
        twin = _TWIN.fullmatch(second)
        if twin is None or twin[1] not in frame.columns:
            continue
        first = twin[1]
        for role in ROLES:
            if first in columns_of(getattr(found.columns, role), frame):
                mend = f"Rename one, or choose the other with {FLAGS[role]} {second}."
                raise DataError(f"two columns are called {first!r}", file=source, row=1, mend=mend)
        notes.append(f"two columns are called {first!r}: the further one is read as {second!r}")
    return replace(found, notes=(*found.notes, *notes)) if notes else found


def columns_of(name: str | None, frame: pl.DataFrame) -> list[str]:
    """The column of a name, or the columns of ``"a,b"``."""
    return [] if name is None else parts_of(name, set(frame.columns))


def _events(frame: pl.DataFrame, given: Columns, named: dict[str, list[str]], source: str) -> Guess:
    """One row is one event."""
    columns, notes = given, ["one row is one event"]
    for role in ("case", "event", "time", "label"):
        if getattr(columns, role):
            continue
        free = [name for name in named[role] if name not in _taken(columns, frame)]
        if role == "event" and not free:
            known = {*_taken(columns, frame), *named["time"], *named["label"]}
            free = [name for name in frame.columns if name not in known]
            free = [name for name in free if not _numeric(frame[name])] or free
            if free and all(_fractional(frame[name]) for name in free):
                problem = f"the numbers of {', '.join(free[:8])} are no events"
                mend = f"Say --value {','.join(free[:8])} (a time series), or --event {free[0]} (each number a symbol)."
                raise DataError(problem, file=source, row=1, mend=mend)
        if len(free) > 1 or (not free and role in ("case", "event")):
            raise _ambiguous(frame, role, free, source)
        if free:
            columns = _with(columns, role, free[0])
            notes.append(_note(role, free[0]))
    taken = _taken(columns, frame)
    if others := [name for name in frame.columns if name not in taken]:
        notes.append(f"other columns are kept as channels of the events: {', '.join(others[:8])}")
    if not columns.time:
        notes.append("no time column: events keep the order of the file (--time orders them and the split)")
    task = "classify" if columns.label else "next"
    return Guess(reader="table", columns=columns, kind="symbols", task=task, notes=tuple(notes))


def _series(frame: pl.DataFrame, given: Columns, named: dict[str, list[str]], source: str) -> Guess | None:
    """One row is one step of a time series: as asked for, or where names and numbers leave no other meaning."""
    cases, times = _series_ids(frame, given, named), columns_of(given.time, frame) or named["time"]
    values = columns_of(given.value, frame) or _values(frame, given, named, cases, source)
    if not values:
        return None
    columns, notes = replace(given, value=given.value or ",".join(values)), ["one row is one step of a time series"]
    for role, free in (("case", cases), ("time", times)):
        free = [name for name in free if name not in values]
        if getattr(columns, role) or not free:
            continue
        if len(free) > 1:
            raise _ambiguous(frame, role, free, source)
        columns = _with(columns, role, free[0])
        notes.append(_note("series" if role == "case" else role, free[0]))
    labels = [name for name in named["label"] if name not in _taken(columns, frame) and _constant(frame, columns, name)]
    if columns.case and not columns.label and len(labels) == 1:
        columns = _with(columns, "label", labels[0])
        notes.append(_note("label", labels[0]))
    if not columns.case:
        notes.append("no column names a series: all rows are one sequence (--case names several)")
    if not columns.time:
        notes.append("no time column: steps keep the order of the file (--time orders them and the split)")
    told = f"{len(values)} columns are the channels" if len(values) > 1 else f"column {values[0]!r} holds the values"
    first = f" ({', '.join(values[:8])})" if len(values) > 1 else ""
    notes.append(f"{told}{first}; --value a,b picks others, --event {values[0]} reads symbols")
    taken = _taken(columns, frame)
    if others := [name for name in frame.columns if name not in taken]:
        notes.append(f"other columns are kept as channels of the steps: {', '.join(others[:8])}")
    task = "classify" if columns.label else "next"
    return Guess(reader="table", columns=columns, kind="values", task=task, notes=tuple(notes))


def _series_ids(frame: pl.DataFrame, given: Columns, named: dict[str, list[str]]) -> list[str]:
    """Columns that may name a series; what only numbers the rows does not."""
    if given.case:
        return [given.case]
    found = named["series"] if surely(named["series"], "series", 2) else named["case"] or named["series"]
    return [name for name in found if not _numbers_rows(frame[name])]


def _values(
    frame: pl.DataFrame, given: Columns, named: dict[str, list[str]], cases: list[str], source: str
) -> list[str]:
    """Columns whose numbers can only be a time series; none where the rows may be something else."""
    times, sure = columns_of(given.time, frame) or named["time"], surely(cases, "series", 2)
    events = [name for name in named["event"] if name not in cases]
    known = {*_taken(given, frame), *cases, *times}
    free = [name for name in frame.columns if name not in known]
    numbers = [name for name in free if _numeric(frame[name])]
    words = [name for name in free if name not in numbers]
    if not times or (events and (not sure or surely(events, "event", 1))):
        return []
    if any(name in words for name in (*named["list"], *named["text"])):
        return []
    valued = [name for name in named["value"] if name in numbers or _mostly_numeric(frame[name])]
    words = [name for name in words if name not in (*valued, *named["label"])]
    if cases and valued:
        if words and not sure:
            problem = "a row could be an event or a step of a time series"
            mend = f"Say --event {words[0]}, or --value {valued[0]}; the columns are {_listing(frame)}."
            raise DataError(problem, file=source, row=1, mend=mend)
        return valued
    if words or given.case or (named["case"] and not sure):
        return []
    if cases and numbers and not sure:
        problem = f"it is not clear whether column {cases[0]!r} names several time series"
        mend = f"Say --case {cases[0]} and --value {numbers[0]}, or for one series --value {','.join(numbers[:8])}."
        raise DataError(problem, file=source, row=1, mend=mend)
    return [name for name in numbers if letters(name) not in _ROW_NUMBERS or not _numbers_rows(frame[name])]


def surely(found: list[str], role: str, tiers: int) -> bool:
    """True where a column has one of the surest names of a role."""
    return any(letters(name) in names for name in found for names in NAMES[role][:tiers])


def _numbers_rows(series: pl.Series) -> bool:
    """True for 0, 1, 2, ... or 1, 2, 3, ...: an index that was saved with the table."""
    if series.dtype != pl.String and not series.dtype.is_integer():
        return False
    numbers = series.cast(pl.Int64, strict=False)
    if numbers.null_count() or len(numbers) < 2 or numbers[0] not in (0, 1):
        return False
    return bool((numbers.diff().drop_nulls() == 1).all())


def _constant(frame: pl.DataFrame, columns: Columns, name: str) -> bool:
    """True where a column has one value within each series, as far as the head shows."""
    cases = columns_of(columns.case, frame)
    return bool(cases) and frame.group_by(cases).agg(pl.col(name).n_unique())[name].max() == 1


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
    taken = _taken(columns, frame)
    if unused := [name for name in frame.columns if name not in taken]:
        notes.append(f"columns that are not used: {', '.join(unused[:8])}")
    kind = "symbols" if columns.event else "text"
    task = "classify" if columns.label else "next"
    return Guess(reader="table", columns=columns, kind=kind, task=task, notes=tuple(notes))


def _with(columns: Columns, role: str, name: str) -> Columns:
    chosen: dict[str, Any] = {role: name}
    return replace(columns, **chosen)


def by_name(frame: pl.DataFrame, role: str, given: Columns) -> list[str]:
    """Columns whose name says that they have a role: those of the surest names that occur."""
    taken = _taken(given, frame)
    for names in NAMES[role]:
        found = [column for column in frame.columns if letters(column) in names and column not in taken]
        if found:
            return found
    return []


def _taken(columns: Columns, frame: pl.DataFrame) -> set[str]:
    return {name for role in ROLES for name in columns_of(getattr(columns, role), frame)}


def letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _numeric(series: pl.Series) -> bool:
    if series.dtype != pl.String:
        return series.dtype.is_numeric()
    return series.drop_nulls().cast(pl.Float64, strict=False).null_count() == 0


def _mostly_numeric(series: pl.Series) -> bool:
    """True for a column of numbers of which some are damaged, so that the complaint is about those."""
    return series.dtype == pl.String and 2 * series.cast(pl.Float64, strict=False).count() > series.count()


def _fractional(series: pl.Series) -> bool:
    """True for numbers of which some are no whole ones."""
    if not _numeric(series):
        return False
    numbers = series.cast(pl.Float64, strict=False).drop_nulls()
    return not bool((numbers == numbers.floor()).all())


def _holds_symbols(series: pl.Series) -> bool:
    """True where most cells of a column called ``sequence`` are lists, or short codes with spaces between them."""
    if isinstance(series.dtype, pl.List):
        return True
    if series.dtype != pl.String or letters(series.name) not in ("sequence", "seq"):
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
        "series": "names the series of a step",
        "event": "is the event",
        "time": "is the time",
        "label": "is the class of a sequence",
        "id": "names the sequences",
    }[role]
    flag = FLAGS["case" if role == "series" else role]
    return f"column {name!r} {meaning} ({flag} chooses another)"
