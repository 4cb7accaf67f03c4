"""Errors that a user can act on, each with the exit code of the command line.

Exit codes: 0 ok, 1 a finding is false, 2 user error, 3 data or extra absent, 130 saved on Ctrl-C, 143 saved on
SIGTERM.
"""

import errno
import re
from pathlib import Path
from typing import ClassVar

OK, FINDING_FALSE, USER_ERROR, ABSENT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


class SeqloomError(Exception):
    """Anything that seqloom raises on purpose; the message says what is wrong and how to mend it."""

    exit_code: ClassVar[int] = USER_ERROR


class ConfigError(SeqloomError, ValueError):
    """An option, a name or a combination of them that cannot work."""


class DataError(SeqloomError, ValueError):
    """A file holds something that cannot be used; says where, what, and how to mend it."""

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        row: int | None = None,
        value: object = None,
        mend: str = "",
    ) -> None:
        """Keep the parts: ``row`` counts from 1 as an editor does; ``value`` is shown shortened."""
        self.problem, self.file, self.row, self.value, self.mend = problem, file, row, value, mend
        where = "" if file is None else f"{file}" + ("" if row is None else f", row {row}") + ": "
        what = "" if value is None else f" (found {_short(value)})"
        super().__init__(f"{where}{problem}{what}" + (f". {mend}" if mend else ""))


class MissingExtra(SeqloomError, ImportError):
    """An optional package is not installed; names the extra that brings it."""

    exit_code = ABSENT

    def __init__(self, package: str, extra: str) -> None:
        """``extra`` is the name in ``pip install "seqloom[extra]"``."""
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed: pip install 'seqloom[{extra}]'")


class AbsentData(SeqloomError):
    """Data that a claim or a benchmark needs is not on this machine; never counted as a pass."""

    exit_code = ABSENT


class DeadEnd(SeqloomError):
    """A decoder has no continuation left: every token of a row is forbidden."""


class CheckpointError(SeqloomError):
    """A saved model or checkpoint is cut short, edited, or from a newer format."""


class Diverged(SeqloomError):
    """The loss became NaN or infinite; the message says at which step and where the last good checkpoint is."""


def mend_os_error(error: OSError, path: str | Path) -> DataError:
    """Turn an operating-system error into one that names the file and the mend."""
    number = error.errno or _number_in(str(error))
    problem, mend = MENDS.get(number, (error.strerror or str(error), "Check the path and the disk."))
    return DataError(problem, file=path, mend=mend)


MENDS = {
    errno.ENOENT: ("no such file or directory", "Check the path."),
    errno.EISDIR: ("is a directory, not a file", "Name a file inside it."),
    errno.ENOTDIR: ("a part of the path is not a directory", "Check the path."),
    errno.EEXIST: ("a file is in the way of a directory", "Choose another path."),
    errno.EACCES: ("permission denied", "Choose a place that you may read and write."),
    errno.EPERM: ("permission denied", "Choose a place that you may read and write."),
    errno.EROFS: ("the file system is read-only", "Choose another place with --out."),
    errno.ENOSPC: ("no space is left on the device", "Free some space; nothing already saved is lost."),
    errno.EDQUOT: ("your quota of disk space is used up", "Free some space; nothing already saved is lost."),
    errno.EFBIG: ("the file is larger than this system allows", "Raise the limit (ulimit -f), or choose another disk."),
    errno.EIO: ("the device failed", "Check the disk, or choose another place; nothing already saved is lost."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one."),
    errno.EMFILE: ("too many files are open", "Raise the limit: ulimit -n."),
}


COMMANDS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


def harmless(text: str) -> str:
    """Text without the characters that a terminal obeys: a name in a file may not move the cursor."""
    return text.translate(COMMANDS)


def _number_in(text: str) -> int:
    """Number of an operating-system error that a library wrote into its message alone."""
    found = re.search(r"os error (\d+)", text)
    return int(found.group(1)) if found else 0


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
