import numba
import torch
from torch import Tensor

MOST = 16


def refuses(x_RK: Tensor, w_NK: Tensor, b_N: Tensor | None) -> str | None:
    if x_RK.dtype not in (torch.float32, torch.float64) or w_NK.dtype != x_RK.dtype:
        return f"made for float32 and float64 of one kind, not {x_RK.dtype} and {w_NK.dtype}"
    if len(x_RK) > MOST:
        return f"{len(x_RK)} rows: beyond {MOST} the matrix libraries are as fast"
    return None


def forward(x_RK: Tensor, w_NK: Tensor, b_N: Tensor | None = None) -> Tensor:
    y_RN = x_RK.new_empty(x_RK.shape[0], w_NK.shape[0])
    x, w, y = x_RK.detach().contiguous().numpy(), w_NK.detach().contiguous().numpy(), y_RN.numpy()
    if b_N is None:
        _multiply(x, w, y)
    else:
        _multiply_add(x, w, b_N.detach().contiguous().numpy(), y)
    return y_RN


# Sums may be taken in any order, so that they become vectors; NaN and infinity stay what they are.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@numba.njit(inline="always", **_OPTIONS)
def _one(x, row, r, out):
    a = x.dtype.type(0)  # not row[0] * 0, whose product with an integer would be float64
    for k in range(row.shape[0]):
        a += x[r, k] * row[k]
    out[r] = a


@numba.njit(inline="always", **_OPTIONS)
def _four(x, row, r, out):
    """Four rows at a time: a weight is loaded once for all of them."""
    a = b = c = d = x.dtype.type(0)  # not row[0] * 0, whose product with an integer would be float64
    for k in range(row.shape[0]):
        w = row[k]
        a += x[r, k] * w
        b += x[r + 1, k] * w
        c += x[r + 2, k] * w
        d += x[r + 3, k] * w
    out[r], out[r + 1], out[r + 2], out[r + 3] = a, b, c, d


@numba.njit(inline="always", **_OPTIONS)
def _eight(x, row, r, out):
    a = b = c = d = e = f = g = h = x.dtype.type(0)  # not row[0] * 0, whose product with an integer would be float64
    for k in range(row.shape[0]):
        w = row[k]
        a += x[r, k] * w
        b += x[r + 1, k] * w
        c += x[r + 2, k] * w
        d += x[r + 3, k] * w
        e += x[r + 4, k] * w
        f += x[r + 5, k] * w
        g += x[r + 6, k] * w
        h += x[r + 7, k] * w
    out[r], out[r + 1], out[r + 2], out[r + 3] = a, b, c, d
    out[r + 4], out[r + 5], out[r + 6], out[r + 7] = e, f, g, h


@numba.njit(inline="always", **_OPTIONS)
def _column(x, row, out):
    R, r = x.shape[0], 0
    while r + 8 <= R:
        _eight(x, row, r, out)
        r += 8
    if r + 4 <= R:
        _four(x, row, r, out)
        r += 4
    while r < R:
        _one(x, row, r, out)
        r += 1


@numba.njit(**_OPTIONS)
def _multiply(x, w, y):
    for n in range(w.shape[0]):
        _column(x, w[n], y[:, n])


@numba.njit(**_OPTIONS)
def _multiply_add(x, w, b, y):
    for n in range(w.shape[0]):
        _column(x, w[n], y[:, n])
        for r in range(x.shape[0]):
            y[r, n] += b[n]
