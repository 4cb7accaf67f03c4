"""A training that is killed without warning and resumed writes the same bytes as one that was not."""

import os
import signal
import subprocess
import sys
import time

import pytest

STEPS = 240


def _begin(log, folder, *more):
    words = ["fit", log, "--model", "gru", "--budget", f"{STEPS}steps", "--out", folder, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "seqloom", *map(str, words)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def _steps(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().count('"kind": "step"') if path.exists() else 0


@pytest.mark.slow
def test_killed_at_three_moments_and_resumed_to_the_same_bytes(tmp_path):
    log = tmp_path / "log.csv"
    rows = (f"c{case},{'abcdefgh'[(case * case + step) % 8]}\n" for case in range(300) for step in range(6 + case % 9))
    log.write_text("case,event\n" + "".join(rows))
    assert _begin(log, tmp_path / "whole").wait(200) == 0
    reached = []
    for share in (0.1, 0.5, 0.9):
        running = _begin(log, tmp_path / "killed", *(["--resume"] if reached else []))
        while running.poll() is None and _steps(tmp_path / "killed") < share * STEPS:
            time.sleep(0.005)
        assert running.poll() is None, "it ended before it could be killed"
        running.send_signal(signal.SIGKILL)
        running.wait()
        reached.append(_steps(tmp_path / "killed"))
    assert reached == sorted(reached)
    assert _begin(log, tmp_path / "killed", "--resume").wait(200) == 0
    for name in ("model.safetensors", "config.json", "vocabulary.json", "run.json", "metrics.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
