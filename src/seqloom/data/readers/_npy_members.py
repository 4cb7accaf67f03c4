"""The bytes of NumPy's files: arrays without a pickle, without trust in what a header or an archive promises."""

import io
import math
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np

from seqloom.core.errors import DataError
from seqloom.data._source import BOMB_BYTES, BOMB_RATIO, Source

MAGIC, ZIP = b"\x93NUMPY", b"PK\x03\x04"
MOST_HEADER, MOST_LENGTH = 10_000, 1 << 48
_AGAIN = "Save the array again."
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class Member:
    """One array: its header, and how to load it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]


def members(source: Source) -> dict[str, Member]:
    """The arrays of a file by name, read only as far as their headers; that of a .npy file is called ``values``."""
    if source.head.startswith(ZIP):
        return _archive(source)
    if not source.head.startswith(MAGIC):
        value = source.head[:8]
        raise DataError("does not begin as an array of NumPy", file=source.name, value=value, mend="See --reader.")
    return {"values": _member("values", io.BytesIO(source.head), source.content, source.name)}


def _member(name: str, head: IO[bytes], content: Callable[[], bytes], file: str) -> Member:
    """One array whose header is at the beginning of ``head``."""
    try:
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0)):  # 3.0 is for names of fields alone
            raise ValueError(f"format {version[0]}.{version[1]}")
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2
            shape, fortran, dtype = read(head, max_header_size=MOST_HEADER)
    except Exception as error:  # numpy's parser of literals lets through whatever it met
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: is no readable array: {words}", file=file, mend=_AGAIN) from error
    if any(length < 0 or length > MOST_LENGTH for length in shape):
        raise DataError(f"{name}: no array has the shape {shape}", file=file, mend=_AGAIN)
    start, order = head.tell(), "F" if fortran else "C"

    def load() -> np.ndarray:
        data, size = content(), math.prod(shape) * dtype.itemsize  # Python's integers: a product that cannot overflow
        if len(data) - start != size:
            problem = f"{name}: its header promises {size} bytes of {dtype} {shape}, and {len(data) - start} follow"
            raise DataError(problem, file=file, mend="Is it cut short, or several arrays in one? Save it again.")
        if not size:  # an empty array may promise rows without end
            return np.zeros(tuple(min(length, 1 << 20) for length in shape), dtype)
        return np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape, order=order)  # type: ignore[call-overload]

    return Member(name, shape, dtype, load)


def _archive(source: Source) -> dict[str, Member]:
    path, found = source.plain_path(), {}
    content = path.read_bytes() if path is not None else source.content()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_sizes(infos, len(content), source.name)
            for info in infos:
                name = info.filename.removesuffix(".npy")
                if name == info.filename or name in found:
                    problem, mend = "holds something else than arrays, each under a name of its own", _AGAIN
                    raise DataError(problem, file=source.name, value=info.filename, mend=mend)
                with archive.open(info) as file:
                    head = io.BytesIO(file.read(MOST_HEADER + 16))
                found[name] = _member(name, head, _unpacking(content, info.filename, source.name), source.name)
    except DataError:
        raise
    except _BROKEN as error:
        raise _damaged(error, source.name) from error
    if not found:
        raise DataError("holds no array", file=source.name, mend=_AGAIN)
    return found


def _unpacking(content: bytes, name: str, file: str) -> Callable[[], bytes]:
    def unpack() -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return archive.read(name)
        except _BROKEN as error:
            raise _damaged(error, file) from error

    return unpack


def _damaged(error: Exception, file: str) -> DataError:
    return DataError(f"is a damaged archive: {error}", file=file, mend="Is it cut short? Copy it again.")


def _check_sizes(infos: list[zipfile.ZipInfo], packed: int, file: str) -> None:
    """No archive that a few bytes blow up: zipfile reads no more of a member than it declares."""
    sizes = [(info.filename, info.file_size, info.compress_size) for info in infos]
    sizes.append(("the archive", sum(info.file_size for info in infos), packed))
    for name, size, held in sizes:
        if size > BOMB_BYTES and size > BOMB_RATIO * held:
            problem = f"{name}: {held} bytes would be unpacked to {size}"
            raise DataError(problem, file=file, mend="If that is meant, save it with numpy.savez, not packed.")
