"""A folder for one process at a time.

The lock is the kernel's (flock): it dies with its process, however that ends. What lies on the disk, ``.lock``, means
nothing by itself, so there is no stale lock and nothing to clean.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from seqloom.core.errors import ConfigError, mend_os_error

NAME = ".lock"


@contextmanager
def alone(folder: Path | None, *, name: str = NAME, mend: str = "choose another place with --out") -> Iterator[None]:
    """Hold a folder, which is made if need be; None = nothing to hold.

    Args:
        folder: What is to be written by one process alone.
        name: File of the lock, where one folder has several.
        mend: What the user can do but wait.

    Raises:
        ConfigError: another process holds it, or it is a file.
        DataError: it cannot be written.
    """
    if folder is None:
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; {mend}")
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / name, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(NotImplementedError):  # a file system without locks: better unguarded than not at all
            lock.acquire()
    except Timeout as error:
        raise ConfigError(f"{folder} is in use by another process; wait for it to end, or {mend}") from error
    except OSError as error:
        raise mend_os_error(error, folder) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may have gone; while the lock is held nobody else can be led astray
            (folder / name).unlink(missing_ok=True)
            for place in made:
                place.rmdir()  # where nothing came of it; a folder that holds something stays
        lock.release()
