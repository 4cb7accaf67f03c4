"""Data from a file, as a value: where it is, how it is read and split, and the hash of what was in it.

    fingerprint = SHA-256 of the file's bytes; of the Arrow stream where the data came from memory

A run that is loaded again refuses a file that has changed since.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from seqloom.core.component import Value
from seqloom.core.errors import DataError, mend_os_error
from seqloom.data import samples
from seqloom.data.columns import Columns
from seqloom.data.sequences import Sequences

SAMPLE = "sample:"
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FileSource(Value):
    """A file of sequences, or ``sample:NAME`` for one that travels with the package."""

    path: str = ""
    """Where the file is; empty = the data came from memory and cannot be read again."""
    columns: Columns | None = None
    """Which column is what; None = judge by their names and content."""
    reader: str | None = None
    """Name of the reader; None = judge by the content."""
    how: Literal["auto", "time", "group", "random", "position"] = "auto"
    """How the held-out parts are chosen."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of training, validation and test."""
    split_seed: int = 0
    """Seed of the split; apart from the run's seed, so that every seed sees the same test part."""
    test: str | None = None
    """Another file that is the test part; the first one is then split into training and validation."""
    fingerprint: str = ""
    """SHA-256 of what was read; checked where it is given."""
    test_fingerprint: str = ""
    """SHA-256 of the test file, likewise: figures of another test part are other figures."""

    @property
    def name(self) -> str:
        """Short name for tables and file names."""
        if self.path.startswith(SAMPLE):
            return self.path.removeprefix(SAMPLE)
        return Path(self.path).name.split(".")[0] if self.path not in ("", "-") else "data"

    def read(self) -> Sequences:
        """Read the file. Raises DataError where its content is not what the fingerprint says."""
        return self._read(self.path, self.fingerprint)

    def read_test(self) -> Sequences | None:
        """Read the test file, where there is one."""
        return None if self.test is None else self._read(self.test, self.test_fingerprint)

    def stamped(self, sequences: Sequences | None = None) -> Self:
        """The same source with its fingerprints: of the files, or of sequences from memory or stdin."""
        known = sequences is not None and self.path in ("", "-")
        main = fingerprint_of(sequences if known else located(self.path))  # type: ignore[arg-type]
        tested = "" if self.test in (None, "-") else fingerprint_of(located(self.test))  # type: ignore[arg-type]
        return replace(self, fingerprint=main, test_fingerprint=tested)

    def _read(self, path: str, fingerprint: str) -> Sequences:
        from seqloom.data.reading import read

        if not path:
            raise DataError("the data came from memory, not from a file", mend="Hand it over again.")
        place = path if path == "-" else located(path)
        if fingerprint and path != "-" and fingerprint_of(Path(place)) != fingerprint:
            raise DataError("the file has changed since this run began", file=path, mend="Begin a new run with --out.")
        return read(place, columns=self.columns, reader=self.reader)


def located(path: str | Path) -> Path:
    """The file that a path or ``sample:NAME`` means."""
    text = str(path)
    return samples.path(text.removeprefix(SAMPLE)) if text.startswith(SAMPLE) else Path(text)


def fingerprint_of(what: Path | Sequences) -> str:
    """SHA-256 of a file's bytes or of the content of sequences."""
    digest = hashlib.sha256()
    if isinstance(what, Sequences):
        import pyarrow as pa

        table = what.table.unify_dictionaries()
        with pa.ipc.new_stream(pa.PythonFile(_Sink(digest), "w"), table.schema) as writer:
            writer.write_table(table)
        return digest.hexdigest()
    try:
        with what.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise mend_os_error(error, what) from error
    return digest.hexdigest()


class _Sink:
    """A file that is only hashed."""

    def __init__(self, digest: Any) -> None:
        self.digest, self.closed = digest, False

    def write(self, data: Any) -> int:
        block = memoryview(data)
        self.digest.update(block)
        return block.nbytes

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True
