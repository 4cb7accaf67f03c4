"""Selective scan: diagonal state-space models whose step size, input and output maps come from the input.

    h_t[e, n] = exp(dt_t[e] a[e, n]) h_{t-1}[e, n] + dt_t[e] b_t[n] x_t[e]        y_t[e] = sum_n c_t[n] h_t[e, n]

The decay is the exact one, the input's factor is Euler's dt b. For a <= 0 and dt >= 0, which it expects, every exponent
is at most 0. dt = 0 keeps the state (a pad). Where ``segments_BT`` changes the past is forgotten. States are float32 or
wider. Nothing of the size B T E N is ever stored by a backend: the backward pass starts from the states at every
``CHUNK`` steps and computes the others again.

Shapes: B batch, T time, E channels, N state, C inner ends of chunks, (T - 1) // CHUNK.
Source: Gu and Dao, "Mamba", 2023, arXiv:2312.00752, sections 3.2 and 3.3 and appendix D.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.kernels._kernel import Cost, kernel

CHUNK = 64  # steps between two kept states: 16 states a channel in 64 steps are a quarter of one stream of inputs


@kernel
def selective_scan(
    x_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    h_BEN: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the outputs, the last state, and the states after every ``CHUNK`` steps that others follow.

    Inputs may differ in precision; half precision is computed in float32.

    Args:
        x_BTE: inputs.
        dt_BTE: step sizes, not negative.
        a_EN: rates, not positive.
        b_BTN: input maps, the same for every channel.
        c_BTN: output maps, the same for every channel.
        h_BEN: state before the first step.
        segments_BT: number of each position's segment, from 0 for what continues ``h_BEN``; None = all 0.
    """
    wide = common(x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN)
    x_TBE, dt_TBE, b_TBN, c_TBN = (value.to(wide).unbind(1) for value in (x_BTE, dt_BTE, b_BTN, c_BTN))
    a_EN, h, start_TB, outputs, kept = a_EN.to(wide), h_BEN.to(wide), starts(segments_BT), [], []
    for t, (x_BE, dt_BE, b_BN, c_BN) in enumerate(zip(x_TBE, dt_TBE, b_TBN, c_TBN, strict=True)):
        if start_TB is not None:
            h = h.masked_fill(start_TB[t][:, None, None], 0)
        h = (dt_BE[..., None] * a_EN).exp() * h + (dt_BE * x_BE)[..., None] * b_BN[:, None]
        outputs.append((h * c_BN[:, None]).sum(2))
        if t % CHUNK == CHUNK - 1 and t + 1 < len(x_TBE):
            kept.append(h)
    y_BTE = torch.stack(outputs, 1).to(x_BTE.dtype) if outputs else torch.empty_like(x_BTE)
    kind = state_dtype(h_BEN)
    states_BCEN = torch.stack(kept, 1).to(kind) if kept else h_BEN.new_zeros(_kept(x_BTE, h_BEN), dtype=kind)
    return y_BTE.contiguous(), h.to(kind).clone(memory_format=torch.contiguous_format), states_BCEN


@selective_scan.shapes
def shapes(x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN, segments_BT=None):
    kind = state_dtype(h_BEN)
    last_BEN, states_BCEN = (h_BEN.new_empty(size, dtype=kind) for size in (h_BEN.shape, _kept(x_BTE, h_BEN)))
    return x_BTE.new_empty(x_BTE.shape), last_BEN, states_BCEN


@selective_scan.vjp(outputs=(2,))
def backward(grads, inputs, outputs):
    *tensors, segments_BT = inputs
    return (*selective_scan_backward(*grads, *tensors, outputs[2], segments_BT), None)


@selective_scan.cost
def cost(x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN, segments_BT=None) -> Cost:
    """The product in the exponent, the decay, the input and the output: four a state; an exponential is none."""
    read = (x_BTE, x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN, h_BEN)
    extra = 0 if segments_BT is None else segments_BT.nbytes
    return Cost(4 * x_BTE.numel() * a_EN.shape[1], sum(value.nbytes for value in read) + extra)


@selective_scan.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Smallest first: one step, packed rows with pads, beyond a chunk, decays to exp(-60), wide, no step."""

    def draw(B: int, T: int, E: int, N: int, largest: float = 2.0) -> tuple[Tensor, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=rng, dtype=dtype)

        dt_BTE, a_EN = (torch.rand(*size, generator=rng, dtype=dtype) for size in ((B, T, E), (E, N)))
        return normal(B, T, E), dt_BTE, -largest * a_EN, normal(B, T, N), normal(B, T, N), normal(B, E, N)

    def segments(B: int, T: int) -> Tensor:
        return (torch.rand(B, T, generator=rng) < 0.2).long().cumsum(1)

    yield *draw(1, 1, 1, 1), None
    x_BTE, dt_BTE, *rest = draw(2, 5, 3, 2)
    dt_BTE[1, 3:] = 0
    yield x_BTE, dt_BTE, *rest, segments(2, 5)
    yield *draw(1, CHUNK + 3, 5, 3, 60.0), segments(1, CHUNK + 3)
    yield *draw(1, 2 * CHUNK, 2, 4), None
    yield *draw(2, 0, 3, 2), None
    yield *draw(1, 9, 67, 16), None


@kernel
def selective_scan_backward(
    dy_BTE: Tensor,
    dlast_BEN: Tensor,
    dstates_BCEN: Tensor,
    x_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    h_BEN: Tensor,
    states_BCEN: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, a, b, c and h. Only backends need ``states_BCEN``: this body keeps every state.

    Its second order is that of this body.
    """
    given = (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN)
    wide, B, T, N = common(*given), *x_BTE.shape[:2], a_EN.shape[1]
    x, dt, b, c, dy = (value.to(wide) for value in (x_BTE, dt_BTE, b_BTN, c_BTN, dy_BTE))
    a_EN, g, start_TB = a_EN.to(wide), dlast_BEN.to(wide), starts(segments_BT)
    decays, held = _states(x, dt, a_EN, b, h_BEN.to(wide), start_TB)
    da, found = torch.zeros_like(a_EN), []
    for t in reversed(range(T)):
        if t % CHUNK == CHUNK - 1 and t + 1 < T:
            g = g + dstates_BCEN[:, t // CHUNK].to(wide)
        g, step_BE1, past = g + dy[:, t, :, None] * c[:, t, None], dt[:, t, :, None], decays[t] * held[t]
        into_BE = (g * b[:, t, None]).sum(2)
        db_BN, dc_BN = (g * step_BE1 * x[:, t, :, None]).sum(1), (held[t + 1] * dy[:, t, :, None]).sum(1)
        ddt_BE = (g * a_EN * past).sum(2) + into_BE * x[:, t]
        found.append((into_BE * dt[:, t], ddt_BE, db_BN, dc_BN))
        da = da + (g * step_BE1 * past).sum(0)
        g = decays[t] * g
    columns = zip(*reversed(found), strict=True) if found else ()
    dx, ddt, db, dc = (torch.stack(value, 1) for value in columns) if found else (x * 1, dt * 1, b * 1, c * 1)
    grads = (dx, ddt, da, db.reshape(B, T, N), dc.reshape(B, T, N), g.clone(memory_format=torch.contiguous_format))
    return tuple(value.to(like.dtype).contiguous() for value, like in zip(grads, given, strict=True))  # type: ignore[return-value]


@selective_scan_backward.shapes
def backward_shapes(
    dy_BTE, dlast_BEN, dstates_BCEN, x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN, states_BCEN, segments_BT=None
):
    return tuple(value.new_empty(value.shape) for value in (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN))


@selective_scan_backward.cost
def backward_cost(
    dy_BTE, dlast_BEN, dstates_BCEN, x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN, states_BCEN, segments_BT=None
) -> Cost:
    """Three products a state to compute it again, and nine for the gradients."""
    given = (x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN)
    moved = (dy_BTE, dlast_BEN, dstates_BCEN, states_BCEN, *given, *given)
    extra = 0 if segments_BT is None else segments_BT.nbytes
    return Cost(12 * x_BTE.numel() * a_EN.shape[1], sum(value.nbytes for value in moved) + extra)


@selective_scan_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Adjoints of the scan's own cases."""
    for *tensors, segments_BT in examples(rng, dtype):
        outputs = selective_scan.reference(*tensors, segments_BT)
        grads = (torch.randn(value.shape, generator=rng, dtype=dtype) for value in outputs)
        yield *grads, *tensors, outputs[2], segments_BT


def common(*tensors: Tensor) -> torch.dtype:
    """What is computed in: the widest of the inputs' dtypes, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def state_dtype(h_BEN: Tensor) -> torch.dtype:
    """Of the last state and of the kept ones."""
    return torch.promote_types(h_BEN.dtype, torch.float32)


def starts(segments_BT: Tensor | None) -> Tensor | None:
    """(T, B), True where the past is forgotten; the state before the first column belongs to segment 0."""
    if segments_BT is None:
        return None
    before_BT = torch.cat([torch.zeros_like(segments_BT[:, :1]), segments_BT[:, :-1]], 1)
    return (segments_BT != before_BT[:, : segments_BT.shape[1]]).T


def _kept(x_BTE: Tensor, h_BEN: Tensor) -> tuple[int, int, int, int]:
    B, E, N = h_BEN.shape
    return B, max(x_BTE.shape[1] - 1, 0) // CHUNK, E, N


def _states(
    x_BTE: Tensor, dt_BTE: Tensor, a_EN: Tensor, b_BTN: Tensor, h_BEN: Tensor, start_TB: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Decays, zero where a segment starts, and the states before the first and after every step."""
    decays, held = [], [h_BEN]
    for t in range(x_BTE.shape[1]):
        decay_BEN = (dt_BTE[:, t, :, None] * a_EN).exp()
        if start_TB is not None:
            decay_BEN = decay_BEN.masked_fill(start_TB[t][:, None, None], 0)
        decays.append(decay_BEN)
        held.append(decay_BEN * held[-1] + (dt_BTE[:, t] * x_BTE[:, t])[..., None] * b_BTN[:, t, None])
    return decays, held
