"""From arrays with a known meaning to Sequences."""

from typing import Any

import numpy as np
import pyarrow as pa

from seqloom.core.errors import DataError
from seqloom.data import _build
from seqloom.data.columns import Guess
from seqloom.data.readers._npy_members import Member
from seqloom.data.sequences import Sequences


def sequences_of(chosen: list[Member], parts: dict[str, Member], guess: Guess, file: str) -> Sequences:
    """One array with what belongs to it, or several that are one sequence each."""
    array = chosen[0].load()
    if len(chosen) > 1:
        arrays = [array, *(member.load() for member in chosen[1:])]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in arrays], dtype=np.int64)])
        flat, kept = np.concatenate(arrays), None
    else:
        flat, offsets, kept = _cut(array, parts, guess, file)
    count = len(offsets) - 1
    sequence = _column(flat, offsets, guess, chosen[0].name, file)
    ids = pa.array([member.name for member in chosen]) if len(chosen) > 1 else _strings(parts, "id", count, file)
    extra: dict[str, Any] = {role: _strings(parts, role, count, file) for role in ("label", "group")}
    if "time" in parts:
        extra["time"] = _times(parts["time"], offsets, kept, file)
    table = _build.table(sequence, ids=ids, columns=extra)
    alphabet = _build.alphabet_of(sequence, guess.kind)
    return Sequences(table, guess.kind, source=file, alphabet=alphabet, notes=guess.notes)


def _cut(
    array: np.ndarray, parts: dict[str, Member], guess: Guess, file: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Steps end to end, offsets of the sequences, and which steps of a padded array were kept."""
    if guess.kind == "text":
        return array, np.arange(len(array) + 1), None
    if "offsets" in parts:
        offsets = parts["offsets"].load().astype(np.int64)
        if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(array):
            at = int(np.argmax(np.diff(offsets, prepend=0) < 0)) if (np.diff(offsets) < 0).any() else len(offsets) - 1
            problem = f"offsets must rise from 0 to {len(array)}"
            raise DataError(problem, file=file, row=at + 1, value=int(offsets[at]), mend="Save N + 1 offsets.")
        return _steps(array, guess, file), offsets, None
    if "lengths" in parts:
        lengths = parts["lengths"].load().astype(np.int64)
        return _by_lengths(array, lengths, guess, file)
    if array.ndim == 1 or guess.columns.stream:
        return array, np.array([0, len(array)]), None
    count, steps = array.shape[:2]
    return array.reshape(count * steps, *array.shape[2:]), np.arange(count + 1) * steps, None


def _by_lengths(
    array: np.ndarray, lengths: np.ndarray, guess: Guess, file: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rows of a padded array cut to their lengths, or steps end to end."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if (lengths < 0).any():
        at = int(np.argmax(lengths < 0))
        raise DataError("a length is negative", file=file, row=at + 1, value=int(lengths[at]), mend="Save it again.")
    if array.ndim > 1 and len(lengths) == len(array) and lengths.max(initial=0) <= array.shape[1]:
        kept = np.arange(array.shape[1]) < lengths[:, None]
        return array[kept], offsets, kept
    if offsets[-1] != len(array):
        problem = f"{len(lengths)} lengths with a sum of {offsets[-1]} do not cut an array {array.shape}"
        raise DataError(problem, file=file, mend="Give one length a row, or lengths whose sum is that of the steps.")
    return _steps(array, guess, file), offsets, None


def _steps(array: np.ndarray, guess: Guess, file: str) -> np.ndarray:
    if array.ndim > (2 if guess.kind == "values" else 1):
        raise DataError(f"an array {array.shape} is not cut by offsets", file=file, mend="Lay its steps end to end.")
    return array


def _column(flat: np.ndarray, offsets: np.ndarray, guess: Guess, name: str, file: str) -> pa.Array:
    if guess.kind == "values":
        values = np.ascontiguousarray(flat, np.float64)
        if not np.isfinite(values).all():
            at = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
            row = int(np.searchsorted(offsets, at[0], side="right"))
            where = f"step {at[0] - offsets[row - 1] + 1}" + (f", channel {at[1] + 1}" if values.ndim == 2 else "")
            value = float(values[at])
            mend = "Fill the gap, or cut the sequence before it."
            raise DataError(f"{name}: {where} is no finite number", file=file, row=row, value=value, mend=mend)
        wide = values.shape[1] if values.ndim == 2 else 0
        column = pa.array(values.ravel())
        return _build.listed(pa.FixedSizeListArray.from_arrays(column, wide) if wide else column, offsets)
    strings = _text(flat, name, file)
    if guess.kind == "text":
        return strings.cast(pa.large_string())
    return _build.listed(strings.dictionary_encode(), offsets)


def _text(array: np.ndarray, name: str, file: str) -> pa.Array:
    """Strings as they are, numbers by their digits."""
    if array.dtype.kind in "iub":
        distinct, codes = np.unique(array, return_inverse=True)
        return pa.array([str(item) for item in distinct.tolist()], pa.string()).take(pa.array(codes.ravel()))
    try:
        items = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        return pa.array(items.tolist(), pa.string())
    except (UnicodeError, ValueError, SystemError) as error:
        problem = f"{name}: holds strings that are no Unicode: {error}"
        raise DataError(problem, file=file, mend="Save it with .astype(str).") from error


def _strings(parts: dict[str, Member], role: str, count: int, file: str) -> pa.Array | None:
    """Ids, labels or groups: one a sequence."""
    if role not in parts:
        return None
    member = parts[role]
    if member.shape != (count,) or member.dtype.kind not in "iubUS":
        problem = f"the array {member.name!r} of {member.dtype} {member.shape} is no {role} of {count} sequences"
        raise DataError(problem, file=file, mend=f"Save whole numbers or strings of the shape ({count},).")
    return _text(member.load(), member.name, file)


def _times(member: Member, offsets: np.ndarray, kept: np.ndarray | None, file: str) -> pa.Array:
    """Times of all steps end to end or padded as the array is, or one a sequence."""
    if member.dtype.kind not in "Mfiu":
        mend = "Save dates as datetime64, or numbers."
        raise DataError(f"the array {member.name!r} of {member.dtype} holds no times", file=file, mend=mend)
    times, count, total = member.load(), len(offsets) - 1, int(offsets[-1])
    times = times.astype("datetime64[us]" if times.dtype.kind == "M" else np.float64)
    if kept is not None and times.shape == kept.shape:
        times = times[kept]
    missing = np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times)
    if missing.any():
        at = int(np.argmax(missing.ravel()))
        mend = "Fill it in, or leave the times away."
        raise DataError(f"{member.name}: time {at + 1} is missing", file=file, value=str(times.flat[at]), mend=mend)
    if times.size == total:
        return _build.listed(pa.array(times.ravel()), offsets)
    if times.shape == (count,):
        return _build.listed(pa.array(times), np.arange(count + 1))
    problem = (
        f"the array {member.name!r} {member.shape} has neither a time for each of {total} steps nor one a sequence"
    )
    raise DataError(problem, file=file, mend="Save one time a step, or one a sequence.")
