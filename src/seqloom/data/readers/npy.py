"""NumPy's arrays: .npy and .npz. Pickles (arrays of objects) are never loaded.

float           (T,) one series    (N, T) N series, with --stream one of C = T channels    (N, T, C) N with C channels
whole, boolean  (T,) one sequence of symbols    (N, T) N of them; values with --value
strings         (N,) a text each, or one sequence where they are single letters    (N, T) N sequences of symbols

An .npz file is one array, or the first of ``values``, ``x``, ``data``, ``sequences``, ``texts`` with what belongs to
it: ``offsets`` (N + 1) or ``lengths`` (N) cut it, ``labels`` or ``y``, ``groups``, ``ids`` and ``times`` describe it.
Without such a name each array is one sequence, and its name the id.
Source: "numpy.lib.format", in NumPy's reference.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seqloom.core.errors import DataError
from seqloom.core.files import replacing
from seqloom.data._source import Source
from seqloom.data.columns import FLAGS, Columns, Guess, Kind
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.readers._named import absent
from seqloom.data.readers._npy_members import MAGIC, ZIP, Member, members
from seqloom.data.sequences import Sequences

_DATA = ("values", "x", "data", "sequences", "texts")
_NAMES = {
    "label": ("labels", "label", "y"),
    "group": ("groups", "group"),
    "id": ("ids", "id", "names"),
    "time": ("times", "time", "timestamps"),
    "offsets": ("offsets",),
    "lengths": ("lengths",),
}
_SPARSE = {"indices", "indptr", "shape", "format"}


class Npy(Reader):
    """An array is one sequence or many; in an archive, the arrays with known names belong together."""

    def sniff(self, source: Source) -> float:
        """Magic bytes; an archive holds arrays where its first member is one."""
        first = source.head[30 : 30 + int.from_bytes(source.head[26:28], "little")]
        if source.head.startswith(MAGIC) or (source.head.startswith(ZIP) and first.endswith(b".npy")):
            return 1.0
        return 0.9 if source.suffix in (".npy", ".npz") else 0.0

    def guess(self, source: Source, columns: Columns) -> Guess:
        """By names, types and shapes: no array is loaded."""
        self.refuse(source, columns, but=("event", "value", "text", "time", "label", "group", "id", "stream"))
        return _meaning(source, columns, members(source))[0]

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """One batch."""
        from seqloom.data.readers._npy_build import sequences_of

        self.refuse(source, columns, but=("event", "value", "text", "time", "label", "group", "id", "stream"))
        found = members(source)
        guess, chosen, parts = _meaning(source, columns, found)
        yield sequences_of(chosen, parts, guess, source.name)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """One array (N, T) where values of one length are all there is, else an archive."""
        arrays = _arrays(sequences, path)
        single = len(arrays) == 1 and Path(path).suffix != ".npz"
        if not single and Path(path).suffix == ".npy":
            problem = f"one array cannot hold {', '.join(arrays)}"
            raise DataError(problem, file=path, mend="Let the name end with .npz.")
        with replacing(Path(path)) as part, part.open("wb") as file:
            if single:
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
            else:
                np.savez(file, **arrays)


def _meaning(
    source: Source, columns: Columns, found: dict[str, Member]
) -> tuple[Guess, list[Member], dict[str, Member]]:
    """The guess, the arrays of the sequences, and the arrays that belong to them by what they are."""
    if set(found) >= _SPARSE:
        raise DataError("is a sparse matrix", file=source.name, mend="Save its .toarray(), or texts and events.")
    for role in ("event", "value", "text", "time", "label", "group", "id"):
        name = getattr(columns, role)
        if name is not None and name not in found:
            mend = f"The arrays are {_listing(found)}."
            raise DataError(absent("array", name, role), file=source.name, mend=mend)
    chosen = _chosen(source, columns, found)
    kind = _kind(chosen[0], columns, source)
    if len(chosen) > 1:
        kind = "symbols" if kind == "text" else kind
        notes = [f"each of {len(chosen)} arrays is one sequence, its name is the id (--value or --event takes one)"]
        return Guess(reader="npy", columns=columns, kind=kind, notes=tuple(notes)), chosen, {}
    array = chosen[0]
    if kind == "text" and columns.text is None and array.name.casefold() != "texts" and _is_cut(found):
        kind = "symbols"
    role = {"values": "value", "symbols": "event", "text": "text"}[kind]
    given: dict[str, Any] = {role: array.name}
    columns = replace(columns, **given)
    notes = _shape_notes(array, kind, columns)
    parts, used = _parts(columns, found, array, notes)
    columns = replace(columns, **used)
    rest = [name for name, member in found.items() if member is not array and member not in parts.values()]
    if rest:
        notes.append(f"arrays that are not used: {', '.join(rest[:8])}")
    task = "classify" if columns.label else "next"
    return Guess(reader="npy", columns=columns, kind=kind, task=task, notes=tuple(notes)), chosen, parts


def _chosen(source: Source, columns: Columns, found: dict[str, Member]) -> list[Member]:
    """The array of the sequences, or all arrays where each is one."""
    asked = [name for name in (columns.value, columns.event, columns.text) if name is not None]
    if len(asked) > 1:
        raise DataError("only one array holds the sequences", file=source.name, value=asked, mend="Keep one flag.")
    named = [name for word in _DATA for name in found if name.casefold() == word]
    free = asked or named[:1]
    if free or len(found) == 1:
        return [found[free[0]] if free else next(iter(found.values()))]
    others = [name for names in _NAMES.values() for name in names]
    left = [member for name, member in found.items() if name.casefold() not in others]
    if len(left) == 1:
        return left
    alike = {("f" if member.dtype.kind == "f" else "s", *member.shape[1:]) for member in left}
    plain = all(m.dtype.kind in "fiubUS" and len(m.shape) in (1, 1 + (m.dtype.kind == "f")) for m in left)
    if len(left) != len(found) or len(alike) != 1 or not plain:
        mend = f"Say --value (numbers), --event (symbols) or --text with one of: {_listing(found)}."
        raise DataError("it is not clear which array holds the sequences", file=source.name, mend=mend)
    return left


def _kind(member: Member, columns: Columns, source: Source) -> Kind:
    """What an array holds; what cannot be a sequence is a DataError."""
    kind, axes = member.dtype.kind, len(member.shape)
    problem, mend = None, ""
    if kind == "O":
        problem = "holds objects; they are pickles, which can run programs and are never loaded"
        mend = "with .astype(str)"
    elif kind not in "fiubUS":
        problem, mend = f"holds {member.dtype}, neither numbers nor strings", "its parts as floats, or as strings"
    elif columns.event == member.name and kind == "f":
        problem, mend = "holds floats, which are no symbols", "with .astype(int), or leave --event away"
    elif columns.value == member.name and kind in "US":
        problem, mend = "holds strings, which are no values", "with .astype(float), or leave --value away"
    elif member.dtype.itemsize == 0:
        problem, mend = "holds empty strings alone", "something"
    values = kind == "f" or (columns.value == member.name and kind in "iub")
    stream = columns.stream and not values
    if problem is None and not 1 <= axes <= (3 if values else 1 if stream else 2):
        shapes = "(T,), (N, T) or (N, T, C)" if values else "(T,) as a stream" if stream else "(T,) or (N, T)"
        problem, mend = f"has the shape {member.shape} instead of {shapes}", "with .reshape(...)"
    if problem is not None:
        raise DataError(f"the array {member.name!r} {problem}", file=source.name, mend=f"Save {mend}.")
    if values:
        return "values"
    single = member.dtype.itemsize == (4 if kind == "U" else 1) and member.name.casefold() != "texts"
    asked = columns.event == member.name or columns.stream
    text = kind in "US" and axes == 1 and not asked and (not single or columns.text == member.name)
    return "text" if text else "symbols"


def _shape_notes(array: Member, kind: Kind, columns: Columns) -> list[str]:
    """How an array is cut into sequences, with the flag that cuts it otherwise."""
    what = f"the array {array.name!r} of {array.dtype} {array.shape}"
    axes, other = len(array.shape), ""
    if kind == "text":
        return [f"{what}: each string is one sequence of characters (--event {array.name}: each is a symbol)"]
    if axes == 1 or columns.stream:
        told = "is one sequence" + (f" with {array.shape[1]} channels (as --stream asks)" if axes == 2 else "")
    else:
        wide = f" with {array.shape[2]} channels" if axes == 3 else ", one a row"
        told = f"holds {array.shape[0]} sequences{wide}"
        if kind == "values" and axes == 2:
            other = f"; --stream reads it as one long sequence with {array.shape[1]} channels"
    if array.dtype.kind in "iub" and kind == "symbols":
        other = f"; its numbers are symbols (--value {array.name} reads them as values)"
    return [f"{what} {told}{other}"]


def _parts(
    columns: Columns, found: dict[str, Member], array: Member, notes: list[str]
) -> tuple[dict[str, Member], dict[str, Any]]:
    """What belongs to the sequences: what was asked for, and what has a name that says so and fits."""
    parts: dict[str, Member] = {}
    used: dict[str, Any] = {}
    for role in ("offsets", "lengths", "id", "label", "group", "time"):
        asked = getattr(columns, role, None)
        named = [name for word in _NAMES[role] for name in found if name.casefold() == word and name != array.name]
        name = asked or next((name for name in named if _fits(role, found[name], _count(array, parts, columns))), None)
        cuts = role in ("offsets", "lengths")
        if name is None or (cuts and (columns.stream or columns.text or "offsets" in parts)):
            continue
        parts[role] = found[name]
        told = f"the array {name!r} is the {role} of the sequences"
        if cuts:
            notes[0] = f"the array {array.name!r} of {array.dtype} {array.shape} is cut into sequences by {name!r}"
        else:
            used[role] = name
            notes.append(f"{told} ({FLAGS[role]} chooses another)")
    return parts, used


def _is_cut(found: dict[str, Member]) -> bool:
    cuts = (*_NAMES["offsets"], *_NAMES["lengths"])
    return any(name.casefold() in cuts and _fits("offsets", member, 0) for name, member in found.items())


def _count(array: Member, parts: dict[str, Member], columns: Columns) -> int:
    """How many sequences there are."""
    if "offsets" in parts:
        return parts["offsets"].shape[0] - 1
    if "lengths" in parts:
        return parts["lengths"].shape[0]
    texts = array.dtype.kind in "US" and columns.text == array.name
    return 1 if (len(array.shape) == 1 and not texts) or columns.stream else array.shape[0]


def _fits(role: str, member: Member, count: int) -> bool:
    """True where an array can be what its name says; otherwise it is something else and left alone."""
    kind = member.dtype.kind
    if role in ("offsets", "lengths"):
        return kind in "iu" and len(member.shape) == 1 and member.shape[0] > 0
    if role == "time":
        return kind in "Mfiu" and len(member.shape) > 0
    return kind in "iubUS" and member.shape == (count,) and member.dtype.itemsize > 0


def _listing(found: dict[str, Member]) -> str:
    shown = [f"{name} ({member.dtype} {member.shape})" for name, member in list(found.items())[:12]]
    return ", ".join(shown) + (f" and {len(found) - 12} more" if len(found) > 12 else "")


def _arrays(sequences: Sequences, path: str | Path) -> dict[str, Any]:
    """What is written, by name."""
    if sequences.channels:
        names = ", ".join(sequences.channels)
        raise DataError("channels beside the sequences have no array", file=path, value=names, mend="Write a table.")
    count, lengths = len(sequences), sequences.lengths
    arrays: dict[str, Any] = {}
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if sequences.kind == "text":
        arrays["texts"] = _strings([sequences.sequence(i) for i in range(count)], path)
    elif sequences.kind == "symbols":
        codes, symbols = sequences.symbols()
        arrays |= {"sequences": _strings(symbols, path)[codes.flat], "offsets": offsets}
    else:
        flat = sequences.values().flat
        if len(set(lengths.tolist())) == 1:
            arrays["values"] = flat.reshape(count, int(lengths[0]), *flat.shape[1:])
        else:
            arrays |= {"values": flat, "offsets": offsets}
    if sequences.ids != [str(number + 1) for number in range(count)]:
        arrays["ids"] = _strings(sequences.ids, path)
    for name, given in (("labels", sequences.labels), ("groups", sequences.groups)):
        if given is not None:
            arrays[name] = _strings(given, path)
    times = sequences.times()
    if times is not None:
        arrays["times"] = times.flat.view("datetime64[us]") if times.values.dtype == np.int64 else times.flat
    return arrays


def _strings(items: list[str], path: str | Path) -> np.ndarray:
    bad = next((item for item in items if item.endswith("\0")), None)
    if bad is not None:
        raise DataError("an array of strings forgets zeros at their ends", file=path, value=bad, mend="Write a table.")
    return np.array(items, str) if items else np.array([], "U1")
