"""The XML side of XES: goes through a log block by block and keeps its attributes as they are written.

The elements of a log lie at fixed depths (log 1, trace 2, event 3, its attributes 4), so that two small handlers do.
What lies deeper, such as the parts of a list, is passed over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from seqloom.core.errors import DataError
from seqloom.data._source import Source

DEEPEST, MOST_KEYS = 100, 500
_SAVE_AGAIN = "Save or download the log again."
_NO_DTD = "Remove it: XES needs none, and a definition can exhaust the memory or read other files."
_CUT = (3, 5, 6, 20)  # expat's codes: no element, unclosed token, half a character, unclosed CDATA section
_EVENT = 1003  # depth of an event: so high that what lies in one is known by its depth alone


@dataclass
class Column:
    """One attribute of the events."""

    tags: set[str] = field(default_factory=set)
    """Its types: string, date, int, float, boolean, id."""
    values: Any = field(default_factory=list)
    """As they are written, None where an event has none: an Arrow array, or a list that may be too short."""


@dataclass
class Traces:
    """Traces and their events as read."""

    rows: list[int] = field(default_factory=list)
    """Line of each trace."""
    attributes: list[dict[str, str]] = field(default_factory=list)
    """Attributes of each trace."""
    starts: list[int] = field(default_factory=list)
    """Number of each trace's first event."""
    lines: list[int] = field(default_factory=list)
    """Line of each event."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Attributes of the events by key."""

    def take(self, but: int = 1) -> "Traces":
        """Take the traces away, all ``but`` the last, which may go on."""
        stop = max(len(self.rows) - but, 0)
        cut = self.starts[stop] if stop < len(self.rows) else len(self.lines)
        taken = Traces(self.rows[:stop], self.attributes[:stop], self.starts[:stop], self.lines[:cut])
        for key, column in self.columns.items():
            taken.columns[key] = Column(set(column.tags), column.values[:cut])
            del column.values[:cut]
        for items in (self.rows, self.attributes, self.starts):
            del items[:stop]
        del self.lines[:cut]
        self.starts[:] = [start - cut for start in self.starts]
        return taken


class Log:
    """A log as far as it has been read."""

    def __init__(self, source: Source) -> None:
        """Nothing is read yet."""
        self.traces = Traces()
        self.classifiers: dict[str, str] = {}
        self._file, self._in_trace, self._skipped = source.name, False, 0
        self.encoding = "utf-8"
        self._parser = expat.ParserCreate()
        self._parser.ordered_attributes = True
        self._parser.XmlDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler, self._parser.EndElementHandler, self.depth = self._handlers()

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Read on; what is no XML is a DataError with its line."""
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            cut = last and error.code in _CUT
            problem = "the log is cut short" if cut else f"is no well-formed XML: {expat.ErrorString(error.code)}"
            raise DataError(problem, file=self._file, row=error.lineno + self._skipped, mend=_SAVE_AGAIN) from error
        except DataError:
            raise
        except (LookupError, ValueError) as error:  # expat asks Python for encodings that it does not know
            mend = "Convert it to UTF-8, and say so in its first line."
            raise DataError(f"its encoding is not known: {error}", file=self._file, row=1, mend=mend) from error

    def skip(self, traces: Traces, lines: int) -> None:
        """Whole traces are left out here, since they were read otherwise: only their attributes are noted."""
        self._skipped += lines
        for key, column in traces.columns.items():
            for tag in column.tags:
                self._column(key, tag)

    def _line(self) -> int:
        return self._parser.CurrentLineNumber + self._skipped

    def _error(self, problem: str, value: object = None, mend: str = _SAVE_AGAIN) -> DataError:
        return DataError(problem, file=self._file, row=self._line(), value=value, mend=mend)

    def _declare(self, version: str, encoding: str | None, standalone: int) -> None:
        self.encoding = (encoding or "utf-8").casefold()

    def _refuse(self, name: str, system: str | None, public: str | None, inside: bool) -> None:
        raise self._error("holds a document type definition (DOCTYPE)", name, _NO_DTD)

    def _handlers(self) -> tuple[Any, Any, Callable[[], int]]:
        """For the start and the end of elements, called for every attribute and so closures; and the depth so far."""
        columns, lines, depth = self.traces.columns, self.traces.lines, 0

        def start(tag: str, pairs: list[str]) -> None:
            nonlocal depth
            depth += 1
            if depth == _EVENT + 1:
                if len(pairs) == 4 and pairs[0] == "key" and pairs[2] == "value":
                    key, value = pairs[1], pairs[3]
                elif (value := self._pair(pairs)[1]) is None:
                    return
                else:
                    key = self._pair(pairs)[0]
                column = columns.get(key)
                if column is None:
                    column = self._column(key, tag)
                gap = len(lines) - 1 - len(column.values)
                if gap:
                    column.values.extend([None] * gap)
                if gap >= 0:  # the second of two attributes with one key is passed over
                    column.tags.add(tag)
                    column.values.append(value)
            elif depth < 4:
                if self._outer(depth, tag.rpartition(":")[2], pairs):
                    lines.append(self._line())
                    depth = _EVENT
            elif DEEPEST < depth < _EVENT or depth > _EVENT + DEEPEST:
                raise self._error(f"elements are nested more than {DEEPEST} deep", tag)

        def end(tag: str) -> None:
            nonlocal depth
            depth -= 1
            if depth == _EVENT - 1:
                depth = 2

        return start, end, lambda: depth

    def _outer(self, depth: int, tag: str, pairs: list[str]) -> bool:
        """What lies above the attributes of events; True where an event begins."""
        traces = self.traces
        if depth == 1 and tag != "log":
            raise self._error("an XES file is one <log>", f"<{tag}>", "Name the right format with --reader.")
        if depth == 2:
            self._in_trace = tag == "trace"
            if self._in_trace:
                traces.rows.append(self._line())
                traces.attributes.append({})
                traces.starts.append(len(traces.lines))
            elif tag == "event":
                raise self._error("an event lies outside of every trace", mend="Put it into a <trace>.")
            elif tag == "classifier":
                named = dict(zip(pairs[::2], pairs[1::2], strict=True))
                self.classifiers[named.get("name", "")] = named.get("keys", "")
        elif depth == 3 and self._in_trace:
            if tag == "event":
                return True
            key, value = self._pair(pairs)
            if value is not None:
                traces.attributes[-1].setdefault(key, value)
        return False

    def _pair(self, pairs: list[str]) -> tuple[str, str | None]:
        """Key and value of an attribute; a list has no value."""
        named = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if "key" not in named:
            raise self._error("an attribute has no key", named.get("value"))
        return named["key"], named.get("value")

    def _column(self, key: str, tag: str) -> Column:
        columns = self.traces.columns
        if key not in columns and len(columns) >= MOST_KEYS:
            raise self._error(f"its events have more than {MOST_KEYS} different attributes", key, "Leave some away.")
        column = columns.setdefault(key, Column())
        column.tags.add(tag)
        return column
