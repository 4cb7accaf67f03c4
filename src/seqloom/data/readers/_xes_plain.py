"""Logs as most programs write them, read many times faster than by a parser: arrays instead of calls.

    <trace> <string key="concept:name" value="c1"/> <event> <date key="time:timestamp" value="..."/> </event> </trace>

A block of whole traces is plain if it is made of nothing but these tags, with white space between them. Whatever else
XML allows (comments, other quotes or orders, nested attributes, numbered characters) makes ``traces_of`` return None,
and the parser of ``_xes_log`` reads on from there. So does a mistake: the parser finds the words and the line for it.
Eight bytes at any place are compared at once, as one number.
"""

from dataclasses import dataclass
from xml.sax.saxutils import unescape

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqloom.data import _build
from seqloom.data.readers._xes_log import Column, Traces

_TAGS = ("string", "date", "int", "float", "boolean", "id")
_EVENT, _END_EVENT, _TRACE, _END_TRACE = 1, 2, 3, 4
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
_CONTROL = bytes(range(32))
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}
_MOST_GAPS, _MOST_KEYS = 64, 64


@dataclass(frozen=True)
class _Attributes:
    """Where the attributes of a block lie; N of them."""

    place: np.ndarray
    """Which of the tags each is, (N,)."""
    quotes: np.ndarray
    """Its four quotes, (N, 4)."""
    tag: np.ndarray
    """Its type, a number in ``_TAGS``, (N,)."""


class _Bytes:
    """A block, and the number that the eight bytes from any place on make."""

    def __init__(self, data: bytes) -> None:
        """Zeros behind the end let every place be asked for."""
        self.data = data
        self._padded = np.frombuffer(data + bytes(16), np.uint8)
        self._eight = np.ndarray((len(data) + 8,), "<u8", self._padded, strides=(1,))

    def places(self, byte: bytes) -> np.ndarray:
        return np.flatnonzero(self._padded[: len(self.data)] == byte[0])

    def at(self, place: np.ndarray, size: int | np.ndarray = 8) -> np.ndarray:
        """The first ``size`` bytes from each place on, as numbers; beyond the end there are zeros."""
        return self._eight[np.minimum(place, len(self.data))] & _MASKS[size]


def traces_of(data: bytes, before: int) -> Traces | None:
    """The traces of a block behind ``before`` lines, or None where it is not plain."""
    if not _is_plain_text(data):
        return None
    block = _Bytes(data)
    tags = block.places(b"<")
    kinds = _kinds(block, tags)
    attributes = _attributes(block, tags, kinds)
    if attributes is None or not _gaps_are_white(block, tags, kinds, attributes) or not _is_nested(kinds):
        return None
    number = np.cumsum(kinds == _EVENT)  # of events so far, at each tag
    inside = np.cumsum(kinds == _END_EVENT) < number
    events, traces = tags[kinds == _EVENT], tags[kinds == _TRACE]
    lines = block.places(b"\n")
    rows, at = (before + 1 + np.searchsorted(lines, place) for place in (traces, events))
    found = Traces(rows.tolist(), [{} for _ in rows], number[kinds == _TRACE].tolist(), at.tolist())
    of_event = inside[attributes.place]
    columns = _columns(block, attributes, np.flatnonzero(of_event), number[attributes.place] - 1, len(events))
    if columns is None:
        return None
    found.columns = columns
    owner = np.cumsum(kinds == _TRACE)[attributes.place] - 1
    for i in np.flatnonzero(~of_event).tolist():
        first, second, third, fourth = attributes.quotes[i].tolist()
        key, value = _decoded(data[first + 1 : second]), _decoded(data[third + 1 : fourth])
        found.attributes[owner[i]].setdefault(key, value)
    return found


def _is_plain_text(data: bytes) -> bool:
    """UTF-8 without entities other than the five of XML, and lines that all end alike."""
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return False
    if b"&" in data and data.count(b"&") != sum(data.count(entity.encode()) for entity in _ENTITIES):
        return False
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\xef\xbf\xbe" not in data and b"\xef\xbf\xbf" not in data


def _number(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


def _kinds(block: _Bytes, tags: np.ndarray) -> np.ndarray:
    """What each tag is; 0 = an attribute, or none of what is plain."""
    begun = block.at(tags)
    kinds = np.zeros(len(tags), np.int8)
    for kind, text in enumerate((b"<event>", b"</event>", b"<trace>", b"</trace>"), 1):
        kinds[begun & _MASKS[len(text)] == _number(text)] = kind
    return kinds


def _attributes(block: _Bytes, tags: np.ndarray, kinds: np.ndarray) -> _Attributes | None:
    """The attributes, where every one is ``<type key="..." value="..."/>``."""
    place = np.flatnonzero(kinds == 0)
    quotes = block.places(b'"')
    if len(quotes) != 4 * len(place):
        return None
    quotes = quotes.reshape(-1, 4)
    begin = tags[place]
    first, second, third, fourth = quotes.T
    size = first - 6 - begin  # of the type's name
    if (size < 2).any() or (size > 8).any():
        return None
    named, tag = block.at(begin + 1, size), np.full(len(place), -1, np.int8)
    for code, text in enumerate(_TAGS):
        tag[named == _number(text.encode())] = code
    right = (tag >= 0) & (block.at(first - 5, 6) == _number(b' key="'))
    right &= (block.at(second + 1) == _number(b' value="')) & (third == second + 8)
    right &= block.at(fourth + 1, 2) == _number(b"/>")
    return _Attributes(place, quotes, tag) if right.all() else None


def _gaps_are_white(block: _Bytes, tags: np.ndarray, kinds: np.ndarray, attributes: _Attributes) -> bool:
    """True where white space lies between tags, and values hold no line ends or tabs, which XML would replace."""
    begin = tags + np.array([0, 7, 8, 7, 8])[kinds]
    begin[attributes.place] = attributes.quotes[:, 3] + 3
    begin, end = np.append(0, begin), np.append(tags, len(block.data))
    left = end - begin
    if (left < 0).any():
        return False
    seen, breaks = 0, len(block.data) - len(block.data.translate(None, _CONTROL))
    while len(begin := begin[left > 0]):
        left = left[left > 0]
        gaps = block.at(begin, np.minimum(left, 8))
        while len(gaps):
            text = int(gaps[0]).to_bytes(8, "little").rstrip(b"\0")
            same = gaps == gaps[0]
            breaks -= int(same.sum()) * len(text.replace(b" ", b""))
            seen += 1
            if text.strip(b" \t\n\r") or seen > _MOST_GAPS:
                return False
            gaps = gaps[~same]
        begin, left = begin + 8, left - 8
    return breaks == 0


def _is_nested(kinds: np.ndarray) -> bool:
    """True where traces hold attributes and events, events hold attributes, and all are closed."""
    in_event = np.cumsum((kinds == _EVENT).astype(np.int64) - (kinds == _END_EVENT))
    in_trace = np.cumsum((kinds == _TRACE).astype(np.int64) - (kinds == _END_TRACE))
    if not len(kinds) or in_event[-1] or in_trace[-1]:
        return False
    one_deep = all(depth.min() == 0 and depth.max() <= 1 for depth in (in_event, in_trace))
    bounds = (kinds == _TRACE) | (kinds == _END_TRACE)
    return one_deep and not in_event[bounds].any() and bool(in_trace[kinds != _END_TRACE].all())


def _columns(
    block: _Bytes, attributes: _Attributes, rest: np.ndarray, event: np.ndarray, count: int
) -> dict[str, Column] | None:
    """The attributes of events by key, in the order in which keys occur; ``rest`` are those not yet placed."""
    quotes, columns = attributes.quotes, {}
    if not len(rest):
        return {}
    begin, size = quotes[:, 0] + 1, quotes[:, 1] - quotes[:, 0] - 1
    bounds = np.ascontiguousarray(quotes[:, 2:]) + np.array([1, 0])
    values = _build.text_column(block.data, bounds.ravel())  # every other one lies between two values
    while len(rest):
        first, length = rest[0], int(size[rest[0]])
        key = block.data[begin[first] : begin[first] + length]
        if b"&" in key or len(columns) == _MOST_KEYS:
            return None
        same = size[rest] == length
        for shift in range(0, length, 8):
            part = min(length - shift, 8)
            same &= block.at(begin[rest] + shift, part) == block.at(begin[first : first + 1] + shift, part)
        chosen, rest = rest[same], rest[~same]
        chosen = chosen[np.diff(event[chosen], prepend=-1) > 0]  # the first of two with one key in an event
        at = np.full(count, -1, np.int64)
        at[event[chosen]] = 2 * chosen
        taken = values.take(pa.array(at, mask=at < 0)).cast(pa.string())
        tags = {_TAGS[code] for code in np.flatnonzero(np.bincount(attributes.tag[chosen]))}
        columns[key.decode()] = Column(tags, _unescaped(taken, block.data))
    return columns


def _unescaped(values: pa.Array, data: bytes) -> pa.Array:
    if b"&" in data and pc.any(pc.match_substring(values, "&")).as_py():
        for entity, letter in _ENTITIES.items():  # that of & itself comes last
            values = pc.replace_substring(values, entity, letter)
    return values


def _decoded(text: bytes) -> str:
    return unescape(text.decode(), {"&quot;": '"', "&apos;": "'"}) if b"&" in text else text.decode()
