"""XES: event logs of process mining as XML, one trace a sequence.

<log> <trace> <string key="concept:name" value="case 1"/>
      <event> <string key="concept:name" value="pay"/> <date key="time:timestamp" value="2024-03-31T17:05:00+02:00"/>

The symbol of an event is its ``concept:name``, its time ``time:timestamp``; its other attributes become channels,
numbers as float64 and anything else as coded strings. ``id``, ``label`` and ``group`` are attributes of the traces.
Source: IEEE 1849-2016, "IEEE standard for eXtensible Event Stream (XES) for achieving interoperability in event logs
and event streams", doi:10.1109/IEEESTD.2016.7740858.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import numpy as np

from seqloom.core.errors import DataError
from seqloom.core.files import replacing
from seqloom.data._source import Source
from seqloom.data.columns import FLAGS, Columns, Guess
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.readers._named import parts_of
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    from seqloom.data.readers._xes_log import Log

_NAME, _TIME, _STEP = "concept:name", "time:timestamp", "lifecycle:transition"
_PROLOGUE = 1 << 20
_BLOCK = 1 << 23  # arrays of larger blocks fall out of the caches: a quarter slower, and three times the memory
_START = re.compile(rb"[\xef\xbb\xbf\xff\xfe\s]*<")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<log xes.version="1849-2016" xes.features="" xmlns="http://www.xes-standard.org/">
<extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
<extension name="Time" prefix="time" uri="http://www.xes-standard.org/time.xesext"/>
"""


class Xes(Reader):
    """One trace is one sequence of events, in the order of their times."""

    chunked = True

    def sniff(self, source: Source) -> float:
        """The ending of the name, or a ``log`` element that speaks of XES."""
        head = source.head.replace(b"\0", b"")  # UTF-16 without its zeros
        spoken = _START.match(head) and re.search(rb"<(\w+:)?log\b", head) and b"xes" in head
        return 1.0 if spoken or source.suffix == ".xes" else 0.0

    def guess(self, source: Source, columns: Columns) -> Guess:
        """By the keys of the first events; the classifiers of the log are told, not followed."""
        from seqloom.data.readers._xes_log import Log

        self.refuse(source, columns, but=("event", "time", "id", "label", "group", "inputs"))
        log = Log(source)
        log.feed(source.head)
        columns, notes = _meaning(source, columns, log)
        task = "classify" if columns.label else "next"
        return Guess(reader="xes", columns=columns, kind="symbols", task=task, notes=tuple(notes))

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """Blocks that end with a trace. All but the last wait in files: the last may hold channels new to the first."""
        from seqloom.data.readers._xes_build import complete
        from seqloom.data.readers._xes_log import Log

        guess, log, held = self.guess(source, columns), Log(source), None
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            waiting: list[Path] = []
            for part in _parts(source, guess, log, min(block, _BLOCK)):
                if held is not None:
                    waiting.append(Path(folder) / f"{len(waiting)}.arrow")
                    held.save(waiting[-1])
                held = part
            for path in waiting:
                yield complete(Sequences.open(path), log.traces.columns, guess.columns)
            if held is not None:
                yield complete(held, log.traces.columns, guess.columns)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """Traces with ids, labels and groups, events with times and channels; times that are no dates are ``time``."""
        if sequences.kind != "symbols":
            raise DataError(f"XES holds events, not {sequences.kind}", file=path)
        with replacing(Path(path)) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(_HEADER)
            for number, name in enumerate(sequences.ids):
                file.writelines(_trace(sequences, number, name, path))
            file.write("</log>\n")


def _parts(source: Source, guess: Guess, log: "Log", block: int) -> Iterator[Sequences]:
    """Whole traces, a block at a time: plain ones at once, and by the parser from the first other one on."""
    from seqloom.data.readers._xes_build import part_of
    from seqloom.data.readers._xes_plain import traces_of

    before, lines, plain, held = 0, 0, None, b""
    for data in source.blocks(block):
        if len(log.traces.rows) > 1:
            yield (part := part_of(log.traces.take(), guess, source.name, before))
            before += len(part)
        held += data
        if plain is None:
            cut, plain = _prologue(held, log)
            lines, held = held.count(b"\n", 0, cut), held[cut:]
        cut = held.rfind(b"</trace>") + 8 if plain else 0
        if cut > 8:
            traces = traces_of(held[:cut], lines)
            if traces is not None:
                log.skip(traces, added := held.count(b"\n", 0, cut))
                lines, held = lines + added, held[cut:]
                yield (part := part_of(traces, guess, source.name, before))
                before += len(part)
            else:
                plain = False
        if plain is False:
            log.feed(held)
            held = b""
    log.feed(held)
    log.feed(b"", last=True)
    if log.traces.rows:
        yield part_of(log.traces.take(but=0), guess, source.name, before)


def _prologue(data: bytes, log: "Log") -> tuple[int, bool | None]:
    """Let the parser read what lies before the first trace: its length, and whether the traces may be plain.

    None = it does not end in these bytes.
    """
    cut = data.find(b"<trace>")
    while cut >= 0 and data.rfind(b"<!--", 0, cut) > data.rfind(b"-->", 0, cut):
        cut = data.find(b"<trace>", cut + 1)  # that one was inside of a comment
    if cut < 0:
        return 0, False if len(data) > _PROLOGUE else None
    start = data[:cut]
    log.feed(start)
    odd = b"<![" in start or start.count(b"<?") > 1
    return cut, not odd and log.depth() == 1 and log.encoding in ("utf-8", "us-ascii")


def _meaning(source: Source, columns: Columns, log: "Log") -> tuple[Columns, list[str]]:
    """Which attribute is what, and a sentence for each guess."""
    found, begun = log.traces.columns, bool(log.traces.lines)
    classified = [keys for keys in log.classifiers.values() if keys and set(keys.split()) <= set(found)]
    notes = [f"each trace is one sequence, named by its {columns.id or _NAME} (--id chooses another attribute)"]
    if not columns.event:
        other = ",".join(classified[0].split()) if classified and _NAME not in found else _NAME
        columns = replace(columns, event=other)
    if not columns.time and (_TIME in found or not begun):
        columns = replace(columns, time=_TIME)
    for role in ("event", "time"):
        for key in parts_of(getattr(columns, role), found):
            if begun and key not in found:
                mend = f"Choose with {FLAGS[role]}: {', '.join(found) or 'they have none at all'}."
                row = log.traces.lines[0]
                raise DataError(f"the first events have no attribute {key!r}", file=source.name, row=row, mend=mend)
    notes.append(f"the symbol of an event is its {columns.event} (--event chooses others, joined where they are many)")
    steps = sorted({step for step in found[_STEP].values if step}) if _STEP in found else []
    if len({step.casefold() for step in steps}) > 1 and _STEP not in parts_of(columns.event, found):
        all_kept = f"events of every {_STEP} are kept ({', '.join(steps[:5])})"
        notes.append(f"{all_kept}; --event {columns.event},{_STEP} tells them apart")
    notes += [f"the log's classifier {name!r} is --event {','.join(k.split())}" for name, k in log.classifiers.items()]
    told = f"events are ordered by {columns.time} (--time chooses another attribute)"
    notes.append(told if columns.time else "events have no time: they keep the order of the file (--time)")
    others = [key for key in found if key not in {*parts_of(columns.event, found), columns.time}]
    if others:
        notes.append(f"other attributes of the events are kept as channels: {', '.join(others[:8])}")
    traced = dict.fromkeys(key for attributes in log.traces.attributes for key in attributes)
    if further := [key for key in traced if key not in (_NAME, columns.id, columns.label, columns.group)]:
        notes.append(f"traces have further attributes: {', '.join(further[:8])} (--label and --group take one)")
    return columns, notes


def _trace(sequences: Sequences, number: int, name: str, path: str | Path) -> Iterator[str]:
    """The lines of one trace."""
    part = sequences.select([number])
    yield "<trace>\n" + _attribute("string", _NAME, name, path)
    for role, values in (("label", part.labels), ("group", part.groups)):
        if values is not None:
            yield _attribute("string", role, values[0], path)
    times = part.times()
    stamped = times is not None and times.values.dtype == np.int64
    clock = [] if times is None else times.flat.view("datetime64[us]").tolist() if stamped else times.flat.tolist()
    channels = {key: (part.channel(key).flat.tolist(), part.channel_symbols(key)) for key in part.channels}
    for at, symbol in enumerate(part.sequence(0)):
        yield "<event>" + _attribute("string", _NAME, symbol, path).strip()
        if stamped and clock[at] is not None:
            yield _attribute("date", _TIME, f"{clock[at].isoformat()}+00:00", path).strip()
        elif clock and not stamped:
            yield _attribute("float", "time", repr(clock[at]), path).strip()
        for key, (values, symbols) in channels.items():
            if symbols is not None:
                yield _attribute("string", key, symbols[values[at]], path).strip()
            elif not np.isnan(values[at]):
                yield _attribute("float", key, repr(values[at]), path).strip()
        yield "</event>\n"
    yield "</trace>\n"


def _attribute(tag: str, key: str, value: str, path: str | Path) -> str:
    if found := _NOT_XML.search(key + value):
        raise DataError("XML cannot hold this character", file=path, value=found[0], mend="Take it out of the symbols.")
    return f"<{tag} key={quoteattr(key)} value={quoteattr(value)}/>\n"
