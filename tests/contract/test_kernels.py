"""Every kernel that is found keeps the contract, by its reference and by each of its backends."""

import pytest

from seqloom.kernels._kernel import Kernel
from seqloom.testing.kernels import check_kernel, device_of, kernels

RUNNABLE = {op.name: tuple(one.name for one in op.backends if device_of(one) is not None) for op in kernels()}
PAIRS = [(op, name) for op in kernels() for name in ("reference", *RUNNABLE[op.name])]


@pytest.mark.parametrize(("op", "backend"), PAIRS, ids=[f"{op.name}-{name}" for op, name in PAIRS])
def test_contract(op: Kernel, backend: str) -> None:
    check_kernel(op, backend)
