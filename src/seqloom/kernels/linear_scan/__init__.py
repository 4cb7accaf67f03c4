"""First-order linear recurrence, the hot loop of every diagonal state-space mixer.

    h_t = a_t * h_{t-1} + x_t          reverse:  h_t = a_t * h_{t+1} + x_t

Real or complex. A decay of 0 forgets the past (a segment starts), a decay of 1 with x = 0 keeps the state (a pad).
Decays that are the same at every position of every row come once, (1, 1, D): a third of the memory traffic less, and
two fifths in the backward pass.

Shapes: B batch, T time, D channels.
Source: Blelloch, "Prefix sums and their applications", 1990, section 1.4.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.kernels._kernel import Cost, kernel


@kernel
def linear_scan(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """Return every state and the last one. This body is the meaning; backends only go faster.

    Half precision is accumulated in float32. The last state keeps the precision of ``h_BD``.

    Args:
        a_BTD: decays; (1, 1, D) where they are constant.
        x_BTD: inputs.
        h_BD: state before the first step (after the last column where reversed).
        reverse: run from the last column to the first.
    """
    dtype, last_dtype = torch.promote_types(a_BTD.dtype, x_BTD.dtype), _result(a_BTD, x_BTD, h_BD)
    wide = torch.promote_types(last_dtype, torch.float32)
    a_TBD, x_TBD, h_BD = spread(a_BTD, x_BTD).to(wide).unbind(1), x_BTD.to(wide).unbind(1), h_BD.to(wide)
    order, states = (slice(None, None, -1) if reverse else slice(None)), []
    for a_BD, x_BD in zip(a_TBD[order], x_TBD[order], strict=True):
        h_BD = a_BD * h_BD + x_BD
        states.append(h_BD)
    y_BTD = torch.stack(states[order], 1) if states else x_BTD.clone(memory_format=torch.contiguous_format)
    return y_BTD.to(dtype), h_BD.to(last_dtype).clone(memory_format=torch.contiguous_format)


@linear_scan.shapes
def shapes(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a_BTD.dtype, x_BTD.dtype)
    return x_BTD.new_empty(x_BTD.shape, dtype=dtype), h_BD.new_empty(h_BD.shape, dtype=_result(a_BTD, x_BTD, h_BD))


@linear_scan.vjp(inputs=("a_BTD", "h_BD"), outputs=(0,))
def backward(grads, inputs, outputs):
    (dy_BTD, dlast_BD), (a_BTD, _, h_BD, reverse), (y_BTD, _) = grads, inputs, outputs
    da_BTD, dx_BTD, dh_BD = linear_scan_backward(dy_BTD, dlast_BD, a_BTD, y_BTD, h_BD, reverse)
    return da_BTD, dx_BTD, dh_BD, None


@linear_scan.cost
def cost(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor, reverse: bool = False) -> Cost:
    macs = (4 if a_BTD.is_complex() else 1) * x_BTD.numel()
    return Cost(macs, a_BTD.nbytes + 2 * x_BTD.nbytes + 2 * h_BD.nbytes)


@linear_scan.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | bool, ...]]:
    """Smallest first, odd sizes, one step, no step; forwards and reversed, real and complex."""
    sizes = ((1, 1, 1), (2, 3, 5), (2, 63, 17), (1, 67, 35), (2, 0, 3))
    for kind in (dtype, dtype.to_complex()):
        for (B, T, D), reverse in zip(sizes, (False, True, False, True, False), strict=True):
            a_BTD, x_BTD = (torch.rand(B, T, D, generator=rng, dtype=kind) for _ in range(2))
            yield a_BTD / (1 + a_BTD.abs().square()), x_BTD, torch.rand(B, D, generator=rng, dtype=kind), reverse
        for (B, T, D), reverse in (((2, 5, 3), True), ((2, 0, 3), False)):  # constant decays
            a_BTD, x_BTD = (torch.rand(*shape, generator=rng, dtype=kind) for shape in ((1, 1, D), (B, T, D)))
            yield a_BTD / (1 + a_BTD.abs().square()), x_BTD, torch.rand(B, D, generator=rng, dtype=kind), reverse


def spread(a_BTD: Tensor, x_BTD: Tensor) -> Tensor:
    """Constant decays at every position, as a view; others as they are."""
    return a_BTD.expand(*x_BTD.shape[:2], -1) if a_BTD.shape[:2] == (1, 1) else a_BTD


@kernel
def linear_scan_backward(
    dy_BTD: Tensor, dlast_BD: Tensor, a_BTD: Tensor, y_BTD: Tensor, h_BD: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, x and h. The adjoint is the same scan run the other way; a backend may fuse the three.

    Its second order is that of this body, which is the scan itself again.
    """
    constant, a_BTD = a_BTD.shape[:2] != dy_BTD.shape[:2], spread(a_BTD, dy_BTD)
    edge_B1D = torch.ones_like(a_BTD[:, :1])
    next_BTD = torch.cat([edge_B1D, a_BTD[:, :-1]] if reverse else [a_BTD[:, 1:], edge_B1D], 1)
    dx_BTD = linear_scan(next_BTD.conj().resolve_conj(), dy_BTD, dlast_BD, not reverse)[0]
    before_BTD = torch.cat([y_BTD[:, 1:], h_BD[:, None]] if reverse else [h_BD[:, None], y_BTD[:, :-1]], 1)
    da_BTD = dx_BTD * before_BTD[:, : dx_BTD.shape[1]].conj()
    da_BTD = da_BTD.sum((0, 1), keepdim=True) if constant else da_BTD
    if not a_BTD.shape[1]:
        return da_BTD, dx_BTD, dlast_BD.clone(memory_format=torch.contiguous_format)
    first = -1 if reverse else 0
    return da_BTD, dx_BTD, a_BTD[:, first].conj() * dx_BTD[:, first]


@linear_scan_backward.shapes
def backward_shapes(
    dy_BTD: Tensor, dlast_BD: Tensor, a_BTD: Tensor, y_BTD: Tensor, h_BD: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    return a_BTD.new_empty(a_BTD.shape), dy_BTD.new_empty(dy_BTD.shape), h_BD.new_empty(h_BD.shape)


@linear_scan_backward.cost
def backward_cost(
    dy_BTD: Tensor, dlast_BD: Tensor, a_BTD: Tensor, y_BTD: Tensor, h_BD: Tensor, reverse: bool = False
) -> Cost:
    macs = (8 if a_BTD.is_complex() else 2) * dy_BTD.numel()
    return Cost(macs, 3 * dy_BTD.nbytes + 2 * a_BTD.nbytes + 3 * h_BD.nbytes)


@linear_scan_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | bool, ...]]:
    """Adjoints of the scan's own cases."""
    for a_BTD, x_BTD, h_BD, reverse in examples(rng, dtype):
        y_BTD, last_BD = linear_scan.reference(a_BTD, x_BTD, h_BD, reverse)
        yield torch.rand_like(y_BTD), torch.rand_like(last_BD), a_BTD, y_BTD, h_BD, reverse


def _result(*tensors: Tensor) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
