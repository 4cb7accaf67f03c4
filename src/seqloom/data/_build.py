"""Arrow columns from and to arrays: the one place that knows how sequences lie in memory."""

from collections.abc import Iterable, Sized
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqloom.core.errors import ConfigError, DataError
from seqloom.data.columns import Alphabet, Kind
from seqloom.data.ragged import Ragged, spans

DNA, PROTEIN = b"ACGTUN", b"ACDEFGHIKLMNPQRSTVWYXBZUOJ*-"
NAT = int(np.datetime64("NaT").astype(np.int64))  # a missing time among microseconds
_SAMPLE = 1 << 16


def sequence_column(items: Any) -> tuple[pa.Array, Kind]:
    """Strings -> text, lists of symbols or integers -> symbols, floating-point arrays -> values."""
    if isinstance(items, str):
        raise ConfigError("one string is one sequence: put it into a list, [text]")
    if not isinstance(items, Iterable):
        raise ConfigError(f"{type(items).__name__} holds no sequences: hand over a path, a frame, or a list of them")
    items = list(items)
    _sized(items)
    first = next((item for item in items if len(item)), items[0] if items else "")
    if isinstance(first, str):
        _all_of(items, str, "strings")
        return pa.array(items, pa.large_string()), "text"
    _none_of_strings(items)
    array = np.asarray(first) if len(first) or isinstance(first, np.ndarray) else np.array([], str)
    whole = array.dtype.kind in "iu"  # a later sequence may show that the numbers are values, not symbols
    if array.dtype.kind == "f" or (whole and any(np.asarray(i).dtype.kind == "f" for i in items if len(i))):
        return _value_column(items), "values"
    if array.dtype.kind not in "iuUSOb":
        raise ConfigError(f"a sequence of {array.dtype} is neither text nor symbols nor values")
    flat = [str(symbol) for item in items for symbol in item]
    if "None" in flat:
        _no_gaps(items)
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in items], dtype=np.int64)])
    return listed(pa.array(flat, pa.string()).dictionary_encode(), offsets), "symbols"


def _sized(items: list[Any]) -> None:
    for number, item in enumerate(items, 1):
        if not isinstance(item, Sized) or (isinstance(item, np.ndarray) and not item.ndim):
            mend = "Put one sequence alone into a list, [sequence]; leave out what is missing."
            raise DataError(f"is {type(item).__name__}, no sequence", file="memory", row=number, value=item, mend=mend)


def _no_gaps(items: list[Any]) -> None:
    for number, item in enumerate(items, 1):
        for at, symbol in enumerate(item, 1):
            if symbol is None:
                mend = "Leave it out, or name what is missing."
                raise DataError(f"symbol {at} is missing", file="memory", row=number, value=None, mend=mend)


def _none_of_strings(items: list[Any]) -> None:
    for number, item in enumerate(items, 1):
        if isinstance(item, str) and item:
            mend = "Write it as a list of symbols, like the first."
            raise DataError("is one string among lists", file="memory", row=number, value=item, mend=mend)


def _all_of(items: list[Any], kind: type, name: str) -> None:
    for number, item in enumerate(items, 1):
        if not isinstance(item, kind):
            raise DataError(f"is no {name[:-1]} like the first", file="memory", row=number, value=item)


def _value_column(items: list[Any]) -> pa.Array:
    arrays = [np.asarray(item, dtype=np.float64) for item in items]
    channels = {array.shape[1] if array.ndim == 2 else 0 for array in arrays if array.size}
    if len(channels) > 1 or any(array.ndim > 2 for array in arrays):
        raise ConfigError(f"sequences of values need one number of channels, not {sorted(channels)}")
    wide = next(iter(channels), 0)
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays], dtype=np.int64)])
    flat = pa.array(np.concatenate([array.ravel() for array in arrays]))
    return listed(pa.FixedSizeListArray.from_arrays(flat, wide) if wide else flat, offsets)


def listed(values: pa.Array, offsets: np.ndarray) -> pa.Array:
    """A large_list column of flat values and int64 offsets."""
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def text_column(data: np.ndarray | bytes | bytearray, offsets: np.ndarray) -> pa.Array:
    """A large_string column of UTF-8 bytes and int64 offsets, without a copy."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)


def strings(values: Any) -> pa.Array | None:
    """Labels, groups or ids as strings; None stays None."""
    return None if values is None else pa.array([str(value) for value in values], pa.string())


def times(values: Any) -> pa.Array | None:
    """A list of times per sequence: datetimes become timestamps, numbers doubles."""
    if values is None:
        return None
    arrays = [np.asarray(item) for item in values]
    stamped = any(array.dtype.kind in "MO" for array in arrays)
    dtype: Any = "datetime64[us]" if stamped else np.float64
    ragged = Ragged.of(arrays, dtype)
    return listed(pa.array(ragged.values), ragged.offsets)


def table(sequence: pa.Array, *, ids: pa.Array | None = None, row: Any = None, columns: dict[str, Any]) -> pa.Table:
    """A table of sequences; ids default to the rows' numbers, columns that are None are left out."""
    count = len(sequence)
    rows = np.arange(1, count + 1) if row is None else row
    given = {"id": pc.cast(pa.array(rows), pa.string()) if ids is None else ids, "sequence": sequence}
    given |= {name: column for name, column in columns.items() if column is not None}
    given["row"] = pa.array(rows, pa.int64())
    for name, column in given.items():
        if len(column) != count:
            raise ConfigError(f"{count} sequences have {len(column)} entries of {name}; each needs one")
    return pa.table(given)


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Set or add a column."""
    at = table.column_names.index(name) if name in table.column_names else -1
    return table.append_column(name, pa.array(values)) if at < 0 else table.set_column(at, name, pa.array(values))


def alphabet_of(column: pa.Array, kind: str) -> Alphabet:
    """What the sequences look like, judged by the first 64 kB."""
    if kind != "text":
        return "events" if kind == "symbols" else "values"
    data, offsets = text_bytes(column)
    return alphabet_of_bytes(data[offsets[0] : offsets[-1]])


def alphabet_of_bytes(data: np.ndarray) -> Alphabet:
    """``dna``, ``protein`` or ``text``: letters of nucleotides, of amino acids, or anything else."""
    letters = set(np.unique(data[:_SAMPLE]).tolist())
    if len(data) < 12:
        return "text"
    if set(bytes(letters).upper()) <= set(DNA):
        return "dna"
    one_case = letters <= set(PROTEIN) or letters <= set(PROTEIN.lower())
    return "protein" if one_case and len(letters) >= 8 else "text"


def text_bytes(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes (the whole buffer) and offsets into it, without a copy."""
    _, offsets, data = array.buffers()
    at = np.frombuffer(offsets, np.int64, count=array.offset + len(array) + 1)[array.offset :]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8), at


def is_coded(column: pa.ChunkedArray) -> bool:
    """True where a list column holds strings."""
    return pa.types.is_dictionary(column.type.value_type)


def codes(column: pa.ChunkedArray) -> tuple[Ragged, list[str]]:
    """Codes int32 and their symbols, one dictionary over all blocks."""
    if column.num_chunks > 1:
        column = column.unify_dictionaries()
    parts = [Ragged(_flat_codes(chunk), _offsets(chunk)) for chunk in column.chunks]
    symbols = column.chunk(0).values.dictionary.to_pylist() if parts else []
    return (Ragged.join(parts) if parts else Ragged.of([])), symbols


def numbers(column: pa.ChunkedArray) -> Ragged:
    """Float64 values, or int64 microseconds of timestamps."""
    parts = []
    for chunk in column.chunks:
        values, wide = chunk.values, 0
        if pa.types.is_fixed_size_list(values.type):
            values, wide = values.flatten(), values.type.list_size
        flat = values.cast(pa.int64()).fill_null(NAT) if pa.types.is_timestamp(values.type) else values
        array = flat.to_numpy(zero_copy_only=False)
        parts.append(Ragged(array.reshape(-1, wide) if wide else array, _offsets(chunk)))
    return Ragged.join(parts) if parts else Ragged.of([], np.float64)


def cut(table: pa.Table, kind: str, starts: np.ndarray, stops: np.ndarray, lengths: np.ndarray) -> pa.Table:
    """One part of each sequence, and of its times and channels; a time of a whole sequence stays with its parts."""
    table = table.combine_chunks()
    for at, name in enumerate(table.column_names):
        column = table[name]
        if name == "sequence" and kind == "text":
            table = table.set_column(at, name, _cut_text(column, starts, stops))
        elif pa.types.is_large_list(column.type):
            offsets = _offsets(column.chunk(0))
            held = np.diff(offsets)
            each = held == lengths  # one value a symbol
            begin, end = np.where(each, starts, 0), np.where(each, np.minimum(stops, held), held)
            values = column.chunk(0).values.take(pa.array(spans(offsets[:-1] + begin, end - begin)))
            table = table.set_column(at, name, listed(values, np.concatenate([[0], np.cumsum(end - begin)])))
    return table


def _cut_text(column: pa.ChunkedArray, starts: np.ndarray, stops: np.ndarray) -> pa.Array:
    """Cut strings at characters: bytes that do not continue a character count."""
    parts = []
    for chunk in column.chunks:
        data, offsets = text_bytes(chunk)
        for i in range(len(chunk)):
            own = data[offsets[i] : offsets[i + 1]]
            if len(own) and own.max() >= 0x80:
                begins = np.append(np.flatnonzero((own & 0xC0) != 0x80), len(own))
                start, stop = begins[min(starts[i], len(begins) - 1)], begins[min(stops[i], len(begins) - 1)]
            else:
                start, stop = starts[i], stops[i]
            parts.append(own[start:stop])
    ragged = Ragged.of(parts, np.uint8)
    return text_column(ragged.values, ragged.offsets)


def _flat_codes(chunk: pa.Array) -> np.ndarray:
    indices = chunk.values.indices
    if indices.null_count:
        raise ConfigError("a sequence of symbols holds a missing one")
    return indices.to_numpy().astype(np.int32, copy=False)


def _offsets(chunk: pa.Array) -> np.ndarray:
    return chunk.offsets.to_numpy()
