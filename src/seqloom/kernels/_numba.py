"""What every numba backend shares: how many threads a call gets, and an exp that becomes vectors.

Only backends import this file, so that everything else runs without numba.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload

SMALL = 1 << 15  # elements; below this a second thread costs more than it saves


def threads(elements: int) -> int:
    """Threads for a call of this size: those that torch has, 1 where the work is small."""
    return 1 if elements < SMALL else min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


def run(serial: Any, parallel: Any, elements: int, *arrays: Any) -> None:
    """Call the form of a loop that suits its size. The parallel form's pool starts only where it is wanted."""
    wanted = threads(elements)
    if wanted == 1:
        serial(*arrays)
        return
    before = numba.get_num_threads()
    numba.set_num_threads(wanted)
    try:
        parallel(*arrays)
    finally:
        numba.set_num_threads(before)


def flat(value: torch.Tensor) -> np.ndarray:
    """A tensor's numbers in one row, the last axis fastest; shared with the tensor where they lie so already."""
    return value.detach().contiguous().view(-1).numpy()


def exp(x: float) -> float:
    """E to the x inside compiled loops: to float32's precision a polynomial, which the compiler makes vectors of."""
    return math.exp(x)


@overload(exp, jit_options={"error_model": "numpy"})
def _exp(x):
    return _exp_float32 if x == numba.types.float32 else _exp_float64


def _exp_float64(x):
    return math.exp(x)


def _exp_float32(x):
    """Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2] and the series of seven terms (relative error 2e-7)."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    whole = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    rest = x - whole * np.float32(0.693359375) + whole * np.float32(2.1219444005469057e-4)
    total = np.float32(1 / 5040) * rest + np.float32(1 / 720)
    total = total * rest + np.float32(1 / 120)
    total = total * rest + np.float32(1 / 24)
    total = total * rest + np.float32(1 / 6)
    total = total * rest + np.float32(1 / 2)
    total = total * rest * rest + rest + np.float32(1)
    return total * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
