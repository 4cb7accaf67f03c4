"""A linear map of a few rows: what every step of generation is made of.

    y_rn = sum_k x_rk w_nk + b_n

With few rows the time is that of reading the weights once, and matrix libraries, which are made for many rows, take
several times as long: measured for float32 weights of 21 MB on one thread, 1.7 ms for torch's linear and 0.6 ms for
the loop here at one row, 2.7 ms and 1.2 ms at eight.

``narrow_linear_now`` is the same without the price of a custom op (45 to 100 us a call); layers/linear.py asks it
first.

Shapes: R rows, K inputs, N outputs.
Source: a plain dot product; nothing is borrowed.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from seqloom.core import counting
from seqloom.kernels._kernel import _FORCED, Cost, kernel

MOST = 16  # rows; beyond, the matrix libraries are as fast


@kernel
def narrow_linear(x_RK: Tensor, w_NK: Tensor, b_N: Tensor | None = None) -> Tensor:
    """Return y (R, N)."""
    return torch.nn.functional.linear(x_RK, w_NK, b_N)


@narrow_linear.shapes
def shapes(x_RK: Tensor, w_NK: Tensor, b_N: Tensor | None) -> Tensor:
    return x_RK.new_empty(len(x_RK), len(w_NK))


@narrow_linear.vjp
def backward(
    grads: tuple[Tensor, ...], inputs: tuple[Tensor, Tensor, Tensor | None], outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Two matrix products and a sum."""
    (dy_RN,), (x_RK, w_NK, b_N) = grads, inputs
    return dy_RN @ w_NK, dy_RN.mT @ x_RK, None if b_N is None else dy_RN.sum(0)


@narrow_linear.cost
def cost(x_RK: Tensor, w_NK: Tensor, b_N: Tensor | None) -> Cost:
    """A product for each row and weight; everything is read or written once."""
    (R, K), N = x_RK.shape, len(w_NK)
    return Cost(R * N * K, (R * K + N * K + R * N + (0 if b_N is None else N)) * x_RK.element_size())


@narrow_linear.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """No rows, every remainder of the blocks of rows, odd widths, with and without a bias."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=dtype)

    yield draw(0, 3), draw(4, 3), draw(4)
    yield draw(3, 5), draw(2, 5), draw(2)
    for rows in (1, 2, 4, 5, 7, 8, 13, 16):
        yield draw(rows, 37), draw(19, 37), None if rows % 2 else draw(19)
    yield draw(1, 256), draw(1024, 256), draw(1024)
    yield draw(8, 256), draw(1024, 256), draw(1024)


def narrow_linear_now(x_RK: Tensor, w_NK: Tensor, b_N: Tensor | None) -> Tensor | None:
    """The result at once, or None where another form has to run: gradients, autocast, tracing, counting, many rows."""
    if x_RK.shape[0] > MOST or torch.is_grad_enabled() or not x_RK.is_cpu or type(x_RK) is not Tensor:
        return None
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or counting.active():
        return None
    if _FORCED[0] not in (None, "numba_cpu") or not (x_RK.is_contiguous() and w_NK.is_contiguous()):
        return None
    loop = _loop()
    same = x_RK.dtype == w_NK.dtype and x_RK.dtype in (torch.float32, torch.float64)
    return loop(x_RK, w_NK, b_N) if loop is not None and same and x_RK.numel() else None


_LOOP: list[Callable[[Tensor, Tensor, Tensor | None], Tensor] | None] = []


def _loop() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """The numba backend's function, imported when a step first wants it; None where numba is absent."""
    if not _LOOP:
        narrow_linear.load("cpu")
        if "numba_cpu" in narrow_linear.absent:
            _LOOP.append(None)
        else:
            from seqloom.kernels.narrow_linear.numba_cpu import forward

            _LOOP.append(forward)
    return _LOOP[0]
