import numba
import numpy as np
import torch
from torch import Tensor

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import run, threads

BLOCK = 2048  # channels a thread carries at once: the carried row stays in the first-level cache
GROUP = 32  # a row is walked in groups of so many channels, downwards where time runs back: the prefetcher follows
NARROW = 64  # and the fewest that are worth a thread of their own
SUM = 128  # steps whose share of a constant decay's gradient is summed before it joins the total: no digit is lost
KINDS = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def refuses(*inputs: Tensor | bool) -> str | None:
    """Serves the scan (a, x, h) and its adjoint (dy, dlast, a, y, h)."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    decays, whole = tensors[-3], tensors[-2]
    if whole.dtype not in KINDS:
        return f"numpy computes no {whole.dtype}"
    if any(value.dtype != whole.dtype for value in tensors):
        return "the inputs differ in dtype"
    if whole.ndim != 3 or any(v.shape != whole.shape for v in tensors if v.ndim != 2 and v is not decays):
        return "the inputs differ in shape"
    if decays.shape not in (whole.shape, (1, 1, whole.shape[2])):
        return "the decays' shape is neither that of the inputs nor (1, 1, D)"
    if any(value.shape != whole.shape[::2] for value in tensors if value.ndim == 2):
        return "the state's shape is not (B, D)"
    if whole.shape[1] < 2:
        return "fewer than two steps: a call would cost more than the work"
    return None


def forward(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    y_BTD, last_BD = fresh(x_BTD.shape, x_BTD), fresh(h_BD.shape, h_BD)
    arrays = (_array(value) for value in (a_BTD, x_BTD, h_BD, y_BTD, last_BD))
    run(_scan, _scan_parallel, x_BTD.numel(), *arrays, reverse, _block(x_BTD))
    return y_BTD, last_BD


def backward(
    dy_BTD: Tensor, dlast_BD: Tensor, a_BTD: Tensor, y_BTD: Tensor, h_BD: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    constant = a_BTD.shape != y_BTD.shape
    da_BTD = a_BTD.new_zeros(len(y_BTD), 1, y_BTD.shape[2]) if constant else fresh(y_BTD.shape, y_BTD)
    dx_BTD, dh_BD = fresh(y_BTD.shape, y_BTD), fresh(h_BD.shape, h_BD)
    values = (dy_BTD, dlast_BD, a_BTD, y_BTD, h_BD, da_BTD, dx_BTD, dh_BD)
    arrays = (_array(value) for value in values)
    loops = (_constant_adjoint, _constant_adjoint_parallel) if constant else (_adjoint, _adjoint_parallel)
    run(*loops, y_BTD.numel(), *arrays, reverse, _block(y_BTD))
    return da_BTD.sum(0, keepdim=True) if constant else da_BTD, dx_BTD, dh_BD


FORWARDS = {"linear_scan": forward, "linear_scan_backward": backward}


def _array(value: Tensor) -> np.ndarray:
    return value.detach().resolve_conj().contiguous().numpy()


def _block(x_BTD: Tensor) -> int:
    """Channels of one piece of work: whole rows stream best, so a row is split only to feed every thread."""
    B, _, D = x_BTD.shape
    pieces = -(-threads(x_BTD.numel()) // max(B, 1))
    return max(NARROW, min(BLOCK, -(-D // pieces)))


def _scan_body(a, x, h, y, last, reverse, block):
    B, T, D = x.shape
    each = 1 if a.shape == x.shape else 0  # a constant decay is read from one place
    pieces = (D + block - 1) // block
    for piece in numba.prange(B * pieces):
        b, low = piece // pieces, piece % pieces * block
        high = min(D, low + block)
        groups = (high - low + GROUP - 1) // GROUP
        carry = h[b, low:high].copy()  # a row of its own, not y's row before: twice the speed, as nothing can alias
        for step in range(T):
            t = T - 1 - step if reverse else step
            for turn in range(groups):
                begin = low + (groups - 1 - turn if reverse else turn) * GROUP
                end = min(high, begin + GROUP)
                state = carry[begin - low : end - low]
                a_row, x_row, y_row = a[each * b, each * t, begin:end], x[b, t, begin:end], y[b, t, begin:end]
                if end - begin == GROUP:  # the same loop twice: a constant length is unrolled into vectors
                    for d in range(GROUP):
                        value = a_row[d] * state[d] + x_row[d]
                        state[d] = value
                        y_row[d] = value
                else:
                    for d in range(end - begin):
                        value = a_row[d] * state[d] + x_row[d]
                        state[d] = value
                        y_row[d] = value
        last[b, low:high] = carry


def _adjoint_body(dy, dlast, a, y, h, da, dx, dh, reverse, block):
    B, T, D = a.shape
    pieces = (D + block - 1) // block
    for piece in numba.prange(B * pieces):
        b, low = piece // pieces, piece % pieces * block
        high = min(D, low + block)
        groups = (high - low + GROUP - 1) // GROUP
        carry = dlast[b, low:high].copy()
        for step in range(T):
            t = step if reverse else T - 1 - step
            before = t + 1 if reverse else t - 1
            for turn in range(groups):
                begin = low + (turn if reverse else groups - 1 - turn) * GROUP
                end = min(high, begin + GROUP)
                state = carry[begin - low : end - low]
                row = y[b, before, begin:end] if step < T - 1 else h[b, begin:end]
                a_row, dy_row = a[b, t, begin:end], dy[b, t, begin:end]
                da_row, dx_row = da[b, t, begin:end], dx[b, t, begin:end]
                if end - begin == GROUP:
                    for d in range(GROUP):
                        value = dy_row[d] + state[d]
                        state[d] = np.conj(a_row[d]) * value
                        da_row[d] = value * np.conj(row[d])
                        dx_row[d] = value
                else:
                    for d in range(end - begin):
                        value = dy_row[d] + state[d]
                        state[d] = np.conj(a_row[d]) * value
                        da_row[d] = value * np.conj(row[d])
                        dx_row[d] = value
        dh[b, low:high] = carry


def _constant_adjoint_body(dy, dlast, a, y, h, da, dx, dh, reverse, block):
    B, T, D = y.shape
    pieces = (D + block - 1) // block
    for piece in numba.prange(B * pieces):
        b, low = piece // pieces, piece % pieces * block
        high = min(D, low + block)
        groups = (high - low + GROUP - 1) // GROUP
        carry, part = dlast[b, low:high].copy(), np.zeros_like(dlast[b, low:high])
        for step in range(T):
            t = step if reverse else T - 1 - step
            before = t + 1 if reverse else t - 1
            for turn in range(groups):
                begin = low + (turn if reverse else groups - 1 - turn) * GROUP
                end = min(high, begin + GROUP)
                state, share = carry[begin - low : end - low], part[begin - low : end - low]
                row = y[b, before, begin:end] if step < T - 1 else h[b, begin:end]
                a_row, dy_row, dx_row = a[0, 0, begin:end], dy[b, t, begin:end], dx[b, t, begin:end]
                if end - begin == GROUP:
                    for d in range(GROUP):
                        value = dy_row[d] + state[d]
                        state[d] = np.conj(a_row[d]) * value
                        share[d] += value * np.conj(row[d])
                        dx_row[d] = value
                else:
                    for d in range(end - begin):
                        value = dy_row[d] + state[d]
                        state[d] = np.conj(a_row[d]) * value
                        share[d] += value * np.conj(row[d])
                        dx_row[d] = value
            if step % SUM == SUM - 1 or step == T - 1:
                for d in range(high - low):
                    da[b, 0, low + d] += part[d]
                    part[d] = 0
        dh[b, low:high] = carry


_scan = numba.njit(cache=True, nogil=True)(_scan_body)
_scan_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_scan_body)
_adjoint = numba.njit(cache=True, nogil=True)(_adjoint_body)
_adjoint_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_adjoint_body)
_constant_adjoint = numba.njit(cache=True, nogil=True)(_constant_adjoint_body)
_constant_adjoint_parallel = numba.njit(cache=True, nogil=True, parallel=True)(_constant_adjoint_body)
