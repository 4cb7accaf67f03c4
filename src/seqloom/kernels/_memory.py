"""Fresh memory for results. On a CPU the system's first touch of a page costs more than most kernels compute.

Measured for one float32 output of 64 MB: 5 ms to compute ``a + x`` into memory that was used before, 27 ms into
memory that was not, 9 ms where it lies on huge pages.
"""

import ctypes
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

HUGE_BYTES = 4 << 20
HUGE_PAGE = 2 << 20
MADV_HUGEPAGE = 14
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def fresh(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An empty contiguous result; a large one on huge pages, so that its first touch costs a quarter."""
    result = torch.empty(shape, dtype=like.dtype, device=like.device)
    if result.nbytes >= HUGE_BYTES and _c("madvise") is not None:
        begin = -(-result.data_ptr() // HUGE_PAGE) * HUGE_PAGE
        length = (result.data_ptr() + result.nbytes - begin) // HUGE_PAGE * HUGE_PAGE
        _c("madvise")(ctypes.c_void_p(begin), ctypes.c_size_t(length), MADV_HUGEPAGE)  # failing changes nothing
    return result


def keep_pages() -> bool:
    """Ask the C library to keep freed memory for the next result instead of handing it back; True where it agreed.

    For a process that computes all day (training, a benchmark): its memory stays at its peak, as on an accelerator.
    Call it before large tensors are made.
    """
    mallopt = _c("mallopt")
    if mallopt is None:
        return False
    agreed = True
    for key, value in (M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 64 << 20):
        agreed = mallopt(ctypes.c_int(key), ctypes.c_int(value)) == 1 and agreed
    return agreed


@cache
def _c(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
