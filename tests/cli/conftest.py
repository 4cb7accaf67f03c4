"""One small model for all tests of the command line, and a way to call it."""

import json
from pathlib import Path

import pytest

from seqloom.cli import main

LOG = "case,event,time\n" + "".join(
    f"c{case},{'abcd'[(case + step) % 4]},2024-01-{case % 27 + 1:02d} 10:{step:02d}\n"
    for case in range(40)
    for step in range(3 + case % 3)
)


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "log.csv"
    path.write_text(LOG)
    return path


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, log) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m"
    assert main(["fit", str(log), "--model", "gru", "--budget", "30steps", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def called(capsys):
    """Call a command; its exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def answered(called):
    """Call a command with --json; the one object on stdout."""

    def call(*words: object) -> dict:
        code, out, err = called(*words, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return json.loads(out)

    return call
