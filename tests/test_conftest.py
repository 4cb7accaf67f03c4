"""The shared set-up does what other tests rely on."""

import random
import subprocess
import sys
import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

DRAWN: list[tuple[float, float, float]] = []


@pytest.mark.parametrize("time", [0, 1])
def test_every_test_starts_from_the_same_seed(time):
    DRAWN.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002
    assert DRAWN[-1] == DRAWN[0]
    assert len(set(DRAWN[-1])) == 3


def test_warnings_are_errors():
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_fresh_memory_is_nan(poisoned_memory):
    assert torch.empty(1000).isnan().all()
    assert torch.empty_like(torch.zeros(3, 4, dtype=torch.float64)).isnan().all()


def test_one_thread_a_worker():
    assert torch.get_num_threads() == 1


@hypothesis.given(st.integers())
def test_hypothesis_goes_with_the_seed_fixture(value):
    assert hypothesis.settings.default.max_examples in (25, 500)
    assert isinstance(value, int)


@pytest.mark.parametrize(("mark", "limit"), [("claim", 300), ("slow", 300), ("parity", None)])
def test_long_tests_have_a_longer_limit(pytestconfig, mark, limit):
    conftest = next(p for p in pytestconfig.pluginmanager.get_plugins() if hasattr(p, "LONG_SECONDS"))
    item = _Marked(mark)
    conftest.pytest_collection_modifyitems([item])
    got = item.get_closest_marker("timeout")
    assert (got.args[0] if got else None) == limit


def test_a_hanging_test_is_stopped(tmp_path):
    (tmp_path / "test_hang.py").write_text("import time\ndef test_hang():\n    time.sleep(30)\n")
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=0.2", str(tmp_path)]
    run = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, timeout=25, check=False)
    assert run.returncode == 1
    assert "Timeout" in run.stdout


class _Marked:
    """The part of a collected test that the hook looks at."""

    def __init__(self, mark: str) -> None:
        self.marks = [getattr(pytest.mark, mark).mark]

    def get_closest_marker(self, name):
        return next((mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark):
        self.marks.append(mark.mark)
