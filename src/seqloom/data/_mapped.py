"""What keeps large data out of memory: rows chosen on disk, and freed memory that goes back to the system."""

import ctypes
import mmap
import sys
import tempfile
import weakref
from typing import Any

import numpy as np
import pyarrow as pa

LARGE = 1 << 27  # bytes; below it memory is simpler and faster
_VIEWS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_BYTES = 1 << 24  # about what is in memory at a time


def take(table: pa.Table, indices: np.ndarray) -> pa.Table:
    """Rows of a table in a given order; those of a large table are written to a file without a name, and mapped."""
    if not len(indices) or table.nbytes * (len(indices) / len(table)) < LARGE:
        return table.take(pa.array(indices))
    step = max(1, len(table) * _BYTES // table.nbytes)
    with tempfile.TemporaryFile(prefix="seqloom-") as file:
        table = table.unify_dictionaries()
        with pa.ipc.new_file(pa.PythonFile(file, "w"), table.schema) as writer:
            for start in range(0, len(indices), step):
                part = table.take(pa.array(indices[start : start + step])).combine_chunks()
                writer.write_table(part)
        mapped = view(file)
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()


def view(file: Any) -> mmap.mmap:
    """The content of an open file as memory; the file may be closed, and its pages come and go."""
    file.flush()
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _VIEWS.add(mapped)
    return mapped


def give_back() -> None:
    """Hand memory that is free back to the system, which Arrow and the C library keep for their next use otherwise.

    Pages of mapped files go too; what is looked at again is read again.
    """
    for mapped in list(_VIEWS):
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # the mapping is shared and read-only: nothing can be lost
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
