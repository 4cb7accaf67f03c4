"""linear_scan against reading its inputs and writing its output once; short_conv against conv1d with transposes."""

from collections.abc import Callable, Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from seqloom.kernels.linear_scan import linear_scan, linear_scan_backward
from seqloom.kernels.short_conv import short_conv
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel

BACKEND = "numba_cpu"


@cache
def check(op) -> None:
    check_kernel(op, BACKEND)


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.complex64):
        for B, T in (4, 2048), (1, 65536):
            yield scan(B, T // 2 if dtype.is_complex else T, 256, dtype)
    yield loop(4, 2048, 256)
    for dtype in (torch.float32, torch.complex64):
        yield constant(4, 2048, 256, dtype)
    for T in (2048, 4096):
        yield training(4, T, 256)
    for B, T, D in (4, 2048, 256), (8, 512, 512):
        yield convolution(B, T, D, 4)
        yield convolution_backward(B, T, D, 4)


def scan(B: int, T: int, D: int, dtype: torch.dtype) -> Case:
    a, x, h = draw(B, T, D, dtype)
    out, dy = torch.empty_like(x), torch.rand_like(x)
    arms = {
        "linear_scan": lambda: linear_scan(a, x, h),
        "linear_scan reversed": lambda: linear_scan(a, x, h, True),
        "its adjoint (5 streams to the floor's 3)": lambda: linear_scan_backward(dy, h, a, out, h),
        "a + x, written to given memory": lambda: torch.add(a, x, out=out),
        "a + x, written to fresh memory": lambda: torch.add(a, x),
    }
    name = f"linear_scan {str(dtype).removeprefix('torch.')} ({B}, {T}, {D})"
    return Case(name, arms, "a + x, written to given memory", lambda: check(linear_scan), goal=1.5)


def loop(B: int, T: int, D: int) -> Case:
    a, x, h = draw(B, T, D, torch.float32)
    arms = {"linear_scan": lambda: linear_scan(a, x, h), "torch loop": lambda: linear_scan.reference(a, x, h)}
    return Case(
        f"linear_scan and the torch loop ({B}, {T}, {D})", arms, "torch loop", lambda: check(linear_scan), rounds=7
    )


def constant(B: int, T: int, D: int, dtype: torch.dtype) -> Case:
    a, x, h = draw(B, T, D, dtype)
    out, dy, decay = torch.empty_like(x), torch.rand_like(x), a[:1, :1].contiguous()
    arms = {
        "linear_scan": lambda: linear_scan(decay, x, h),
        "linear_scan reversed": lambda: linear_scan(decay, x, h, True),
        "its adjoint (3 streams to the floor's 2)": lambda: linear_scan_backward(dy, h, decay, out, h),
        "linear_scan, the decay at every position": lambda: linear_scan(decay.expand_as(x), x, h),
        "copy of x": lambda: out.copy_(x),
    }
    name = f"linear_scan with constant decay, {str(dtype).removeprefix('torch.')} ({B}, {T}, {D})"
    return Case(name, arms, "copy of x", lambda: check(linear_scan), goal=1.5)


def training(B: int, T: int, D: int) -> Case:
    """Forward and backward of a complex scan, as an LRU trains: 2 + 3 streams of constant decays, 3 + 5 of others."""
    a, x, h = draw(B, T, D, torch.complex64)
    decay, dy = a[:1, :1].contiguous().requires_grad_(), torch.rand_like(x)
    a, x = a.requires_grad_(), x.requires_grad_()
    first, second = torch.empty_like(x), torch.empty_like(x)

    def run(decays: Tensor, scan: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(scan(decays, x, h)[0], (decays, x), dy)

    def streams() -> Tensor:
        with torch.no_grad():
            first.copy_(x)
            return torch.add(dy, first, out=second)

    arms = {
        "linear_scan with constant decay": lambda: run(decay, linear_scan),
        "linear_scan": lambda: run(a, linear_scan),
        "torch loop": lambda: run(a, linear_scan.reference),
        "a copy and an addition (2 + 3 streams)": streams,
    }
    name = f"linear_scan complex64 forward + backward ({B}, {T}, {D})"
    return Case(name, arms, "a copy and an addition (2 + 3 streams)", lambda: check(linear_scan), rounds=7)


def convolution(B: int, T: int, D: int, K: int) -> Case:
    x, weight, bias, out = torch.randn(B, T, D), torch.randn(D, K), torch.randn(D), torch.empty(B, T, D)
    arms = {
        "short_conv + silu": lambda: short_conv(x, weight, bias, activation="silu"),
        "conv1d with transposes + silu": lambda: by_conv1d(x, weight, bias),
        "copy of x": lambda: out.copy_(x),
    }
    return Case(f"short_conv ({B}, {T}, {D}), {K} taps", arms, "copy of x", lambda: check(short_conv))


def convolution_backward(B: int, T: int, D: int, K: int) -> Case:
    x, weight, bias = (torch.randn(*shape).requires_grad_() for shape in ((B, T, D), (D, K), (D,)))
    dy = torch.randn(B, T, D)
    arms = {
        "short_conv + silu": lambda: torch.autograd.grad(
            short_conv(x, weight, bias, activation="silu")[0], (x, weight, bias), dy
        ),
        "conv1d with transposes + silu": lambda: torch.autograd.grad(by_conv1d(x, weight, bias), (x, weight, bias), dy),
    }
    name = f"short_conv forward + backward ({B}, {T}, {D}), {K} taps"
    return Case(name, arms, "conv1d with transposes + silu", lambda: check(short_conv), rounds=9)


def by_conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    padded = F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0))
    return F.silu(F.conv1d(padded, weight[:, None], bias, groups=x.shape[2])).transpose(1, 2).contiguous()


def draw(B: int, T: int, D: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(B, T, D, dtype=dtype) * 0.6, torch.rand(B, T, D, dtype=dtype), torch.rand(B, D, dtype=dtype)
