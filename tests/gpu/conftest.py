"""What the tests on a device share: where they run, exact products, and an end to workers whose device is lost."""

import os
import time
from collections.abc import Iterator

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable products; read when the library starts

import pytest
import torch

DEVICE = os.environ.get("SEQLOOM_GPU_TESTS_ON", "cuda")
"""`cpu` tries the tests themselves in Triton's interpreter, at small sizes."""
GRACE = 0.5  # seconds in which a worker's last reports leave it


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(scope="session")
def small() -> bool:
    """Whether sizes must stay what the interpreter bears."""
    return DEVICE == "cpu"


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """No 19-bit products: cuDNN's recurrences and convolutions round to them unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def pytest_runtest_logfinish(nodeid: str) -> None:
    """After an illegal access every later call of the process fails: let another worker take the remaining tests."""
    if not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except Exception as error:  # whatever it is called: the device answers no more
        if "PYTEST_XDIST_WORKER" in os.environ:
            time.sleep(GRACE)
            os._exit(3)
        pytest.exit(f"the device is lost after {nodeid}: {error}", returncode=3)
