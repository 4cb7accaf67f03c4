"""Files that are whole or not there: the one way in which the library writes to the disk.

    a part beside the place -> flushed to the disk -> renamed -> the folder flushed

A process that dies on the way leaves a hidden ``.NAME.*.part`` behind. Nothing ever reads one, and the next writing
of the same file clears away those whose writer is gone: a writer holds a lock on its part, which dies with it.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seqloom.core.errors import CheckpointError, ConfigError, mend_os_error

try:
    import fcntl
except ImportError:  # Windows refuses by itself to remove a file that somebody has open
    fcntl = None  # type: ignore[assignment]

ENDING = ".part"
LARGEST = 1 << 28
"""Bytes of the largest JSON file that is read: a vocabulary of ten million symbols."""
DEEPEST = 64
"""Levels of lists and objects inside each other; what is written here has about ten."""
MEND = "Copy the whole folder again, or fit the model again"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed and takes the place of ``path``."""
    part, number = None, -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear(path)
        number, part = _begin(path)
        yield part
        _flush(part)
        part.chmod(0o644)
        if fcntl is None:
            os.close(number)
            number = -1
        part.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise mend_os_error(error, path) from error
    finally:
        if part is not None:
            with suppress(OSError):  # what went wrong before is the news
                part.unlink(missing_ok=True)
        if number >= 0:
            os.close(number)


def clear(path: Path) -> None:
    """Remove the parts of a file whose writers have died."""
    begin = f".{path.name}."
    with os.scandir(path.parent) as entries:
        left = [Path(entry.path) for entry in entries if entry.name.startswith(begin) and entry.name.endswith(ENDING)]
    for part in left:
        with suppress(OSError):  # another process may clear it at the same time
            number = os.open(part, os.O_RDONLY)
            try:
                if fcntl is not None:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write JSON, whole or not at all, readable and stable."""
    write_text(path, json_text(document))


def json_text(document: Any) -> str:
    """The text that ``write_json`` writes."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read JSON; CheckpointError where it is cut short or unreasonable, OSError turned into a DataError."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise CheckpointError(f"{path} is no file of seqloom: {size:,} bytes of JSON. {MEND}")
        return parsed(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise mend_os_error(error, path) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not readable JSON: it was cut short or edited ({error}). {MEND}") from error


def parsed(text: str, what: str) -> Any:
    """JSON that somebody else may have written: no NaN, no depth that ends the stack."""
    try:
        document = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise CheckpointError(f"{what} is not readable JSON: it was cut short or edited ({error}). {MEND}") from error
    except RecursionError as error:
        raise CheckpointError(f"{what} is nested too deeply: it was edited. {MEND}") from error
    level, depth = [document], 0
    while level:
        if depth > DEEPEST:
            raise CheckpointError(f"{what} is nested too deeply: it was edited. {MEND}")
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level, depth = [item for items in inner for item in items if isinstance(item, dict | list)], depth + 1
    return document


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise mend_os_error(error, path) from error


def inside(folder: Path, name: str) -> Path:
    """A file of a folder by its plain name; ConfigError for a name that leads anywhere else."""
    if name in ("", ".", "..") or any(mark in name for mark in ("/", "\\", "\0", ":")):
        raise ConfigError(f"{name!r} is no plain file name: it may not lead out of {folder}")
    return folder / name


def check_writable(path: Path) -> None:
    """Refuse a place where a file could not be written later, before the long work begins. DataError says why."""
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "is a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        clear(path)
        number, part = _begin(path)
        os.close(number)
        part.unlink()
        for folder in made:
            folder.rmdir()
    except OSError as error:
        raise mend_os_error(error, path) from error


def _begin(path: Path) -> tuple[int, Path]:
    """A new part that is locked while this process lives."""
    while True:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ENDING, dir=path.parent)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: parts of the dead stay there
                fcntl.flock(number, fcntl.LOCK_EX)
        if Path(name).exists():
            return number, Path(name)
        os.close(number)  # somebody who was clearing took it for a dead one, before it was locked


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _flush_folder(path: Path) -> None:
    with suppress(PermissionError):  # Windows opens no folders
        _flush(path)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")
