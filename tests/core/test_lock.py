"""One process a folder; a lock ends with its process and never outlives it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from seqloom.core.errors import ConfigError, DataError
from seqloom.core.lock import alone

HOLDER = """
import sys, time
from pathlib import Path
from seqloom.core.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def _holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    process = _holder(tmp_path / "m")
    try:
        words = r"in use by another process.*wait for it to end, or.*--out"
        with pytest.raises(ConfigError, match=words) as told, alone(tmp_path / "m"):
            pytest.fail("two processes hold one folder")
        assert str(tmp_path / "m") in str(told.value)
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / "m" / ".lock").exists()  # what kill -9 leaves means nothing
    began = time.monotonic()
    with alone(tmp_path / "m"):
        assert time.monotonic() - began < 5
    assert not (tmp_path / "m" / ".lock").exists()


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ConfigError, match="in use"), alone(tmp_path):
        pass
    with alone(tmp_path), alone(tmp_path / "arm"), alone(tmp_path, name=".other"):
        pass


def test_nothing_to_hold_and_nothing_left(tmp_path: Path) -> None:
    with alone(None):
        pass
    with alone(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())
    with alone(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "model").write_text("x")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["model"]


def test_a_folder_that_vanishes_takes_the_lock_with_it(tmp_path: Path) -> None:
    with alone(tmp_path / "m"):
        (tmp_path / "m" / ".lock").unlink()
        (tmp_path / "m").rmdir()
    with alone(tmp_path / "m"):
        pass


def test_places_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file is a file; choose another place"), alone(tmp_path / "file"):
        pass
    for folder in (tmp_path / "file" / "m", Path("/proc/seqloom")):
        with pytest.raises(DataError, match=folder.name), alone(folder):
            pass
