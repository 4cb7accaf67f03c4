"""Arrow columns from and to arrays: the one place that knows how sequences lie in memory."""

import io
from collections.abc import Iterable, Mapping, Set, Sized
from contextlib import suppress
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
    items = _items(items)
    first = next((item for item in items if len(item)), items[0] if items else "")
    if isinstance(first, str):
        _all_of(items, str, "strings")
        return _text(items), "text"
    _none_of_strings(items)
    arrays = [_array(item, row) for row, item in enumerate(items, 1)]
    filled = [array for array in arrays if array.size]
    array = filled[0] if filled else np.array([], str)
    whole = array.dtype.kind in "iu"  # a later sequence may show that the numbers are values, not symbols
    if array.dtype.kind == "f" or (whole and any(other.dtype.kind == "f" for other in filled)):
        return _value_column(arrays), "values"
    if array.dtype.kind not in "iuUSOb":
        raise ConfigError(f"a sequence of {array.dtype} is neither text nor symbols nor values")
    return _symbol_column(items, arrays), "symbols"


def _items(items: Any) -> list[Any]:
    """A list of sequences, each a string, a list or an array."""
    name = type(items).__name__
    if isinstance(items, str):
        raise ConfigError("one string is one sequence: put it into a list, [text]")
    if isinstance(items, bytes | bytearray | io.IOBase):
        raise ConfigError(f"{name} holds no sequences: hand over the path of the file, or a list of strings")
    if isinstance(items, Set):
        raise ConfigError(f"{name} has no order: hand over a list of sequences")
    if not isinstance(items, Iterable) or getattr(items, "ndim", 1) == 0:
        raise ConfigError(f"{name} holds no sequences: hand over a path, a frame, or a list of them")
    return [_plain(item, row) for row, item in enumerate(as_array(items), 1)]


def as_array(item: Any) -> Any:
    """A tensor or another library's array as an array of numpy, on the CPU; anything else as it is."""
    if isinstance(item, str | np.ndarray | np.generic) or not hasattr(item, "__array__"):
        return item
    try:
        if hasattr(item, "detach"):  # of torch, which is not imported for it
            item = item.detach().cpu()
            item = item.double() if item.dtype.is_floating_point else item  # numpy knows no bfloat16
        return np.asarray(item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{type(item).__name__} cannot become an array of numpy: {error}") from error


def _plain(item: Any, row: int) -> Any:
    """A sequence as a string, a list or an array; what is none is an error at its row."""
    mend = ""
    if isinstance(item, str):
        return item
    if isinstance(item, bytes):
        try:
            return item.decode("utf-8")
        except UnicodeDecodeError:
            mend = "Decode it to a string first."
    item = as_array(item)
    if isinstance(item, np.ma.MaskedArray):
        if not np.ma.is_masked(item):
            return item.data
        mend = "Leave out or fill what is masked."
    elif isinstance(item, Set | Mapping):
        mend = "Write it as a list: a sequence has an order."
    elif not isinstance(item, Sized) or (isinstance(item, np.ndarray) and not item.ndim):
        mend = "Put one sequence alone into a list, [sequence]; leave out what is missing."
    if mend:
        raise DataError(f"is {type(item).__name__}, no sequence", file="memory", row=row, value=item, mend=mend)
    return item


def _array(item: Any, row: int) -> np.ndarray:
    words = isinstance(item, list | tuple) and isinstance(next(iter(item), None), str)
    try:
        array = np.asarray(item, object if words else None)  # one long word would widen all of them
    except (ValueError, TypeError, OverflowError, RuntimeError):
        mend = "Give every step the same number of channels, and every symbol a name of its own."
        raise DataError("its steps differ in their form", file="memory", row=row, value=item, mend=mend) from None
    return array.astype(str) if array.dtype.kind == "S" else array


def _text(items: list[str]) -> pa.Array:
    try:
        return pa.array(items, pa.large_string())
    except UnicodeEncodeError:
        for row, item in enumerate(items, 1):
            if any("\ud800" <= letter <= "\udfff" for letter in item):
                mend = "Read the original again with its right encoding."
                raise DataError("holds half a character", file="memory", row=row, value=item, mend=mend) from None
        raise


def _symbol_column(items: list[Any], arrays: list[np.ndarray]) -> pa.Array:
    for row, array in enumerate(arrays, 1):
        if array.ndim > 1 and array.size:
            mend = "Join what makes one symbol, 'a+b'; numbers with a point (1.0) are values with channels."
            raise DataError("its symbols are lists", file="memory", row=row, value=array[0], mend=mend)
    parts = [array if isinstance(item, np.ndarray) else item for item, array in zip(items, arrays, strict=True)]
    for row, part in enumerate(parts, 1):
        if any(issubclass(kind, Iterable) and not issubclass(kind, str) for kind in set(map(type, part))):
            mend = "Write every symbol as a string, a number or another single thing."
            raise DataError("one of its symbols is a collection", file="memory", row=row, value=part, mend=mend)
    flat = [str(symbol) for part in parts for symbol in part]
    if "None" in flat or "nan" in flat:
        _no_gaps(parts)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)])
    try:
        return listed(pa.array(flat, pa.string()).dictionary_encode(), offsets)
    except UnicodeEncodeError:
        raise ConfigError("a symbol holds half a character (a lone surrogate): read the original again") from None


def _no_gaps(items: list[Any]) -> None:
    for number, item in enumerate(items, 1):
        for at, symbol in enumerate(item, 1):
            if symbol is None or symbol != symbol:
                mend = "Leave it out, or name what is missing."
                raise DataError(f"symbol {at} is missing", file="memory", row=number, value=symbol, mend=mend)


def _none_of_strings(items: list[Any]) -> None:
    for number, item in enumerate(items, 1):
        if isinstance(item, str) and item:
            mend = "Write it as a list of symbols, like the first."
            raise DataError("is one string among lists", file="memory", row=number, value=item, mend=mend)


def _all_of(items: list[Any], kind: type, name: str) -> None:
    for number, item in enumerate(items, 1):
        if not isinstance(item, kind):
            mend = f"Hand over {name} only, or lists only."
            raise DataError(f"is no {name[:-1]} like the first", file="memory", row=number, value=item, mend=mend)


def _value_column(arrays: list[np.ndarray]) -> pa.Array:
    wide = next((array.shape[1] if array.ndim == 2 else 0 for array in arrays if array.size), 0)
    floats = [_finite(array, row) for row, array in enumerate(arrays, 1)]
    for row, values in enumerate(floats, 1):
        if values.size and (values.ndim > 2 or (values.shape[1] if values.ndim == 2 else 0) != wide):
            problem = f"sequences of values need one number of channels: its shape is {values.shape}"
            first = f"(length, {wide})" if wide else "(length,)"
            raise DataError(problem, file="memory", row=row, mend=f"The first one's is {first}.")
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in floats], dtype=np.int64)])
    flat = pa.array(np.concatenate([array.ravel() for array in floats]))
    return listed(pa.FixedSizeListArray.from_arrays(flat, wide) if wide else flat, offsets)


def _finite(array: np.ndarray, row: int) -> np.ndarray:
    """Float64 values of one sequence."""
    values = None if array.size else np.zeros(0)
    if array.dtype.kind in "fiub" or (array.dtype.kind == "O" and not any(isinstance(x, str) for x in array.flat)):
        with suppress(ValueError, TypeError, OverflowError):
            values = array.astype(np.float64)
    if values is None:
        mend = "Leave it out, or write every symbol as a string."
        raise DataError("is no sequence of numbers", file="memory", row=row, value=array, mend=mend)
    finite = np.isfinite(values)
    if not finite.all():
        at = int(np.argmin(finite.reshape(len(values), -1).all(1)))
        problem, mend = f"step {at + 1} is no finite number", "Fill the gap, or leave out the step."
        raise DataError(problem, file="memory", row=row, value=values[at].tolist(), mend=mend)
    return values


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
        flat = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
        if flat.null_count and flat is not values:
            flat = flat.fill_null(NAT)  # it copies, needed or not
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
