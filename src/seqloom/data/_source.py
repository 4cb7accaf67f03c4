"""Where bytes come from: a file, plain or compressed (gzip, Zstandard), or standard input."""

import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from seqloom.core.errors import DataError, mend_os_error

_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
BOM = b"\xef\xbb\xbf"
HEAD = 1 << 16
BOMB_BYTES, BOMB_RATIO = 100_000_000, 500
"""A packed file may unpack to so much, or to so many times its size: what is above both was made to fill the memory."""


class Source:
    """One input; a compressed one is known by its first bytes, not by its name."""

    def __init__(self, path: str | Path) -> None:
        """Look at the first bytes; ``"-"`` is standard input."""
        self.name = "standard input" if str(path) == "-" else str(path)
        self.path = None if str(path) == "-" else Path(path)
        if "\0" in self.name:
            raise DataError("is no path: it holds a null byte", value=self.name, mend="Check the path.")
        start = self._start()
        self.packing = next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), None)
        if not start:
            raise DataError("is empty", file=self.name, mend="Check how it was made.")

    @classmethod
    def of(cls, path: "str | Path | Source") -> "Source":
        """A source as it is, or the source at a path."""
        return path if isinstance(path, Source) else cls(path)

    @property
    def suffix(self) -> str:
        """Ending of the name below that of the packing, in small letters: ``.csv`` of ``A.CSV.gz``."""
        suffixes = [ending.lower() for ending in Path(self.name).suffixes]
        if suffixes and suffixes[-1] in (".gz", ".zst", ".gzip", ".zstd"):
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @cached_property
    def head(self) -> bytes:
        """The first 64 kB, unpacked."""
        if self.packing is None and self._memory is None and self.path is not None:
            with self.path.open("rb") as file:
                return file.read(HEAD)
        return next(self.blocks(HEAD), b"")

    def blocks(self, size: int = 1 << 26) -> Iterator[bytes]:
        """The unpacked bytes in blocks of at most ``size``."""
        import pyarrow as pa

        try:
            raw = pa.BufferReader(self._memory) if self._memory is not None else pa.OSFile(str(self.path), "rb")
            with raw, pa.CompressedInputStream(raw, self.packing) if self.packing else raw as stream:
                unpacked = 0
                while block := stream.read(size):
                    unpacked += len(block)
                    if self.packing and unpacked > max(BOMB_BYTES, BOMB_RATIO * raw.tell()):
                        raise self._bomb()
                    yield block
        except OSError as error:
            raise self._unpackable(error) from error

    def content(self) -> bytes:
        """All unpacked bytes."""
        return b"".join(self.blocks())

    def plain_path(self) -> Path | None:
        """The file itself where it can be read as it is."""
        return self.path if self.packing is None and self._memory is None else None

    def check_text(self) -> Self:
        """Refuse what is no UTF-8 text at first sight."""
        for magic, name in _WIDE.items():
            if self.head.startswith(magic):
                mend = f"Convert it: iconv -f {name} -t UTF-8 {self.name} > converted"
                raise DataError(f"is {name}, not UTF-8", file=self.name, mend=mend)
        if b"\0" in self.head:
            row = self.head[: self.head.index(b"\0")].count(b"\n") + 1
            raise DataError("holds binary data, not text", file=self.name, row=row, mend="Name its format: --reader.")
        if b"\r" in self.head.rstrip() and b"\n" not in self.head:
            mend = f"Convert it: tr '\\r' '\\n' < {self.name} > converted"
            raise DataError("its lines end with lone carriage returns", file=self.name, row=1, mend=mend)
        return self

    def broken_text(self, data: bytes, first_row: int = 1) -> DataError:
        """The error for bytes that are not UTF-8, with the row of the first bad byte."""
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            row = first_row + data.count(b"\n", 0, error.start)
            value = data[max(error.start - 10, 0) : error.start + 10]
            mend = "Convert it to UTF-8, for instance: iconv -f LATIN1 -t UTF-8."
            return DataError("is not UTF-8 text", file=self.name, row=row, value=value, mend=mend)
        return DataError("is not UTF-8 text", file=self.name)

    @cached_property
    def _memory(self) -> Any:
        """Bytes of standard input, which can be read only once."""
        return sys.stdin.buffer.read() if self.path is None else None

    def _start(self) -> bytes:
        if self._memory is not None:
            return self._memory[:4]
        try:
            with self.path.open("rb") as file:  # type: ignore[union-attr]
                return file.read(4)
        except OSError as error:
            raise mend_os_error(error, self.name) from error

    def _bomb(self) -> DataError:
        problem = f"unpacks to more than {BOMB_RATIO} times its size, as files do that are made to fill the memory"
        return DataError(problem, file=self.name, mend="If you trust it, unpack it yourself and read the plain file.")

    def _unpackable(self, error: OSError) -> DataError:
        if self.packing is None or error.errno:
            return mend_os_error(error, self.name)
        problem = "is cut short" if "runcated" in str(error) else "is damaged"
        return DataError(f"the {self.packing} file {problem}", file=self.name, mend="Copy or download it again.")


def unmarked(source: Source, size: int) -> Iterator[bytes]:
    """Blocks without a byte order mark, which the smallest ones cut."""
    blocks, start = source.blocks(size), b""
    while len(start) < len(BOM) and (data := next(blocks, b"")):
        start += data
    yield start.removeprefix(BOM)
    yield from blocks
