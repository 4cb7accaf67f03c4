import torch
import triton
import triton.language as tl
from torch import Tensor

STEPS, CHANNELS = 32, 32  # the largest tile that a program holds at once


def refuses(*inputs: Tensor | bool) -> str | None:
    a_BTD, x_BTD, h_BD = (value for value in inputs if isinstance(value, Tensor))
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128)
    if x_BTD.dtype not in kinds or any(value.dtype != x_BTD.dtype for value in (a_BTD, h_BD)):
        return f"the dtypes {a_BTD.dtype}, {x_BTD.dtype} and {h_BD.dtype} are not one that it serves"
    if a_BTD.shape not in (x_BTD.shape, (1, 1, x_BTD.shape[-1])) or h_BD.shape != x_BTD.shape[::2]:
        return "the shapes are not (B, T, D) or (1, 1, D), (B, T, D) and (B, D)"
    if x_BTD.shape[1] < 2 or not x_BTD.numel():
        return "fewer than two steps: a call would cost more than the work"
    return None


def forward(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    a_BTD, x_BTD, h_BD = (value.detach().resolve_conj().contiguous() for value in (a_BTD, x_BTD, h_BD))
    (B, T, D), y_BTD, last_BD = x_BTD.shape, torch.empty_like(x_BTD), torch.empty_like(h_BD)
    tensors = (a_BTD, x_BTD, h_BD, y_BTD, last_BD)
    if x_BTD.is_complex():
        tensors = tuple(torch.view_as_real(value) for value in tensors)
    scan = _complex_scan if x_BTD.is_complex() else _real_scan
    steps, channels = (min(most, triton.next_power_of_2(size)) for most, size in ((STEPS, T), (CHANNELS, D)))
    sizes = {"CONSTANT": a_BTD.shape != x_BTD.shape, "REVERSE": reverse, "STEPS": steps, "CHANNELS": channels}
    scan[(B, triton.cdiv(D, channels))](*tensors, T, D, **sizes)
    return y_BTD, last_BD


@triton.jit
def _compose(a, x, b, y):
    return a * b, b * x + y


@triton.jit
def _complex_compose(ar, ai, xr, xi, br, bi, yr, yi):
    return ar * br - ai * bi, ar * bi + ai * br, br * xr - bi * xi + yr, br * xi + bi * xr + yi


@triton.jit
def _real_scan(
    a_ptr,
    x_ptr,
    h_ptr,
    y_ptr,
    last_ptr,
    T,
    D,
    CONSTANT: tl.constexpr,
    REVERSE: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)  # 64-bit before any pointer arithmetic
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row = tl.arange(0, STEPS)
    wide = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    h = tl.load(h_ptr + b * D + d, mask=d < D, other=0.0).to(wide)
    for start in range(0, T, STEPS):
        step = start + row
        t = T - 1 - step if REVERSE else step
        at = (b * T + t[:, None]) * D + d[None, :]
        inside = (step < T)[:, None] & (d < D)[None, :]
        a_at = 0 * t[:, None] + d[None, :] if CONSTANT else at
        a = tl.load(a_ptr + a_at, mask=inside, other=1.0).to(wide)  # beyond the end the state is kept
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(wide)
        product, total = tl.associative_scan((a, x), 0, _compose)
        y = product * h[None, :] + total
        tl.store(y_ptr + at, y, mask=inside)
        h = tl.sum(tl.where((row == STEPS - 1)[:, None], y, 0.0), 0)
    tl.store(last_ptr + b * D + d, h, mask=d < D)


@triton.jit
def _complex_scan(
    a_ptr,
    x_ptr,
    h_ptr,
    y_ptr,
    last_ptr,
    T,
    D,
    CONSTANT: tl.constexpr,
    REVERSE: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row = tl.arange(0, STEPS)
    state = 2 * (b * D + d)
    hr = tl.load(h_ptr + state, mask=d < D, other=0.0)
    hi = tl.load(h_ptr + state + 1, mask=d < D, other=0.0)
    for start in range(0, T, STEPS):
        step = start + row
        t = T - 1 - step if REVERSE else step
        at = 2 * ((b * T + t[:, None]) * D + d[None, :])
        inside = (step < T)[:, None] & (d < D)[None, :]
        a_at = 2 * (0 * t[:, None] + d[None, :]) if CONSTANT else at
        ar = tl.load(a_ptr + a_at, mask=inside, other=1.0)
        ai = tl.load(a_ptr + a_at + 1, mask=inside, other=0.0)
        xr = tl.load(x_ptr + at, mask=inside, other=0.0)
        xi = tl.load(x_ptr + at + 1, mask=inside, other=0.0)
        pr, pi, sr, si = tl.associative_scan((ar, ai, xr, xi), 0, _complex_compose)
        yr = pr * hr[None, :] - pi * hi[None, :] + sr
        yi = pr * hi[None, :] + pi * hr[None, :] + si
        tl.store(y_ptr + at, yr, mask=inside)
        tl.store(y_ptr + at + 1, yi, mask=inside)
        hr = tl.sum(tl.where((row == STEPS - 1)[:, None], yr, 0.0), 0)
        hi = tl.sum(tl.where((row == STEPS - 1)[:, None], yi, 0.0), 0)
    tl.store(last_ptr + state, hr, mask=d < D)
    tl.store(last_ptr + state + 1, hi, mask=d < D)
