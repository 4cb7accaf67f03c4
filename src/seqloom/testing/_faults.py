"""A disk that fails when it is told to: every change of it below a folder is counted, and the k-th one goes wrong.

    full     OSError(ENOSPC), and nothing can grow from then on, though files can be removed
    broken   OSError(EIO), once
    kill     the process ends here: half of what was to be written is written, and from then on nothing changes,
             whatever cleaning up is tried; what stood in buffers is lost, locks are given up

It stands in for the calls that the library and its libraries make from Python: opening for writing, writing, flushing,
renaming, removing, making folders. Polars and Arrow write by themselves; their writers count as one change each.
"""

import builtins
import errno
import gc
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import polars as pl

Fault = Literal["full", "broken", "kill"]
NUMBERS = {"full": errno.ENOSPC, "broken": errno.EIO}
GROWING = ("create", "mkdir", "open", "write", "flush", "close", "fsync")


class Killed(BaseException):
    """Stands for kill -9."""


class Disk:
    """Counts the changes below a folder; the one with number ``at`` (from 0) fails."""

    def __init__(self, root: Path, at: int = -1, fault: Fault = "kill") -> None:
        """``at`` -1 = count alone."""
        self.root, self.at, self.fault = str(Path(root).resolve()), at, fault
        self.changes: list[str] = []
        """What was done, in order: the operation and the file's name."""
        self.dead = False
        self._files: list[_File] = []
        self._numbers: dict[int, str] = {}

    @property
    def failed(self) -> bool:
        """Whether the fault was met."""
        return 0 <= self.at < len(self.changes)

    @contextmanager
    def watching(self) -> Iterator["Disk"]:
        """Watch while the block runs; Killed ends it silently."""
        with ExitStack() as stack:
            for place, name, stand_in in self._stand_ins():
                stack.enter_context(mock.patch.object(place, name, stand_in))
            with suppress(Killed):
                yield self
        if self.dead:
            for file in self._files:
                file.end()
            gc.collect()  # file locks of the dead
            for number in [*self._numbers]:
                with suppress(OSError):
                    os.close(number)
            self._files.clear()

    def change(self, what: str, path: object, half: Callable[[], object] | None = None) -> None:
        """Count one change; fail if it is its turn."""
        if self.dead:
            raise Killed
        self.changes.append(f"{what} {Path(str(path)).name}")
        now = len(self.changes) - 1 == self.at
        still = self.fault == "full" and self.failed and what.startswith(GROWING)
        if not now and not still:
            return
        if half is not None:
            half()
        if self.fault == "kill":
            self.dead = True
            for file in self._files:
                file.lose()
            raise Killed
        number = NUMBERS[self.fault]
        raise OSError(number, os.strerror(number), str(path))

    def mine(self, path: object) -> bool:
        """Whether a path lies below the folder."""
        return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(self.root)  # noqa: PTH100

    def _stand_ins(self) -> Iterator[tuple[Any, str, Any]]:
        for name in ("mkdir", "rmdir", "unlink", "remove", "chmod"):
            yield os, name, self._one_path(name, getattr(os, name))
        for name in ("rename", "replace"):
            yield os, name, self._two_paths(name, getattr(os, name))
        yield os, "open", self._os_open(os.open)
        yield os, "close", self._os_close(os.close)
        yield os, "fsync", self._fsync(os.fsync)
        for place in (io, builtins):
            yield place, "open", self._open(io.open)
        for name in ("write_csv", "write_parquet", "write_ndjson"):
            yield pl.DataFrame, name, self._polars(name, getattr(pl.DataFrame, name))

    def _one_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if self.mine(path):
                self.change(name, path)
            return real(path, *args, **options)

        return call

    def _two_paths(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(before: Any, after: Any, **options: Any) -> Any:
            if self.mine(after):
                self.change(name, after)
            return real(before, after, **options)

        return call

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if not self.mine(path):
                return real(path, flags, *args, **options)
            if flags & (os.O_CREAT | os.O_TRUNC):
                self.change("create", path)
            number = real(path, flags, *args, **options)
            self._numbers[number] = str(path)
            return number

        return call

    def _os_close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(number: int) -> None:
            self._numbers.pop(number, None)
            real(number)

        return call

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(number: int) -> None:
            if number in self._numbers:
                self.change("fsync", self._numbers[number])
            real(number)

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not self.mine(path) or not set(mode) & set("wax+"):
                return real(path, mode, *args, **options)
            self.change("open", path)
            file = _File(self, real(path, mode, *args, **options), path)
            self._files.append(file)
            return file

        return call

    def _polars(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(frame: pl.DataFrame, file: Any = None, *args: Any, **options: Any) -> Any:
            if self.mine(file):
                self.change(name, file, lambda: Path(file).write_bytes(b'"half'))
            return real(frame, file, *args, **options)

        return call


class _File:
    """An open file whose writes, flushes and closing count."""

    def __init__(self, disk: Disk, real: Any, path: object) -> None:
        self._disk, self._real, self._path = disk, real, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        def half() -> None:
            self._real.write(data[: len(data) // 2])
            self._real.flush()

        self._disk.change("write", self._path, half)
        return self._real.write(data)

    def flush(self) -> None:
        self._disk.change("flush", self._path)
        self._real.flush()

    def close(self) -> None:
        if self._real.closed:
            return
        try:
            self._disk.change("close", self._path)
        finally:
            self._real.close()

    def end(self) -> None:
        """Close without a change."""
        self._real.close()

    def lose(self) -> None:
        """Forget what stands in the buffer, as the end of a process does."""
        if not self._real.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._real.fileno())
            os.close(nowhere)
