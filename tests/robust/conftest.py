"""A small log, and a way to call the command line in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LOG = "case,event\n" + "".join(f"c{case},{'abcd'[(case + k) % 4]}\n" for case in range(60) for k in range(4 + case % 5))


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "log.csv"
    path.write_text(LOG)
    return path


@pytest.fixture
def begun() -> Iterator[Callable[..., subprocess.Popen]]:
    """Begin a command; whatever still runs at the end is killed."""
    running = []

    def begin(*words: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "seqloom", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()
