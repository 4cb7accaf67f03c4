"""What every test shares: the environment before any import, seeds, hypothesis profiles, time limits."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # a spinning pool starves the other worker
    "NUMBA_NUM_THREADS": "2",  # two, so that a parallel loop is split even where there is one core
    "NUMBA_CACHE_DIR": str(ROOT / ".cache" / "numba"),  # one place: what a worker compiles, the others load
    "TRITON_INTERPRET": "1",  # Triton reads it when a kernel is defined; the gpu tests run with 0
    "HF_HUB_OFFLINE": "1",  # no test may fetch anything
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import random  # noqa: E402  (the environment comes first)
import signal  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what runs in the background inherits a deaf Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `ci` repeats the same examples on every machine; `search` looks for new ones: HYPOTHESIS_PROFILE=search make test
hypothesis.settings.register_profile(
    "ci",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy neighbour is no defect
)
hypothesis.settings.register_profile("search", max_examples=500, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

LONG_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give claims and slow grids their longer limit; skip gpu tests where there is no accelerator."""
    no_accelerator = pytest.mark.skip(reason="no accelerator on this machine")
    stands_in = os.environ.get("SEQLOOM_GPU_TESTS_ON") == "cpu"  # the tests themselves are tried, in the interpreter
    for item in items:
        long = item.get_closest_marker("claim") or item.get_closest_marker("slow")
        if long and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))
        if item.get_closest_marker("gpu") and not (stands_in or torch.accelerator.is_available()):
            item.add_marker(no_accelerator)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their size: content may hold the time of day (gzip does), and workers must agree on names."""
    return f"{argname}{len(val)}" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same random state, in whatever order and worker it runs."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (third-party code draws from the global state)
    torch.manual_seed(0)
    return 0


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fresh memory (`torch.empty` and its kin) is NaN: what is read before it is written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)
