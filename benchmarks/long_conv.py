"""long_conv against the bare transforms: rfft, multiply, irfft on inputs that already lie channel by channel."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from seqloom.kernels._kernel import use_backend
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv.chunks import chunk_long_conv
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel

FLOOR = "bare rfft, multiply, irfft on (B, D, T)"


@cache
def check() -> None:
    check_kernel(long_conv, "torch_cpu")


def cases() -> Iterator[Case]:
    yield forward(4, 4096, 256)
    yield forward(1, 65536, 64)
    yield forward(32, 1021, 64)  # a prime length, many rows
    yield forward_and_backward(4, 4096, 256)
    yield forward_and_backward(1, 65536, 64)
    yield short_kernel(1, 262144, 16, 512)


def bare(u_BDT: Tensor, k_DT: Tensor) -> Tensor:
    n = 2 * u_BDT.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u_BDT, n) * torch.fft.rfft(k_DT, n), n)[..., : u_BDT.shape[-1]]


def strided(u_BTD: Tensor, k_DT: Tensor) -> Tensor:
    n = 2 * u_BTD.shape[1]
    return torch.fft.irfft(torch.fft.rfft(u_BTD, n, dim=1) * torch.fft.rfft(k_DT, n).T, n, dim=1)[:, : u_BTD.shape[1]]


def reference(u_BTD: Tensor, k_DT: Tensor) -> Tensor:
    with use_backend("reference"):
        return long_conv(u_BTD, k_DT)


def forward(B: int, T: int, D: int) -> Case:
    u, k, (skip, back) = torch.randn(B, T, D), torch.randn(D, T), (torch.randn(D), torch.randn(D, T))
    turned = u.transpose(1, 2).contiguous()
    arms = {
        "long_conv": lambda: long_conv(u, k),
        "both directions and skip": lambda: long_conv(u, k, back, skip),
        FLOOR: lambda: bare(turned, k),
        "bare, along dim 1 of (B, T, D)": lambda: strided(u, k),
        "reference": lambda: reference(u, k),
    }
    return Case(f"forward ({B}, {T}, {D})", arms, FLOOR, check, goal=1.3, rounds=9)


def forward_and_backward(B: int, T: int, D: int) -> Case:
    u, k, dy = torch.randn(B, T, D).requires_grad_(), torch.randn(D, T).requires_grad_(), torch.randn(B, T, D)
    turned, dy_turned = u.detach().transpose(1, 2).contiguous().requires_grad_(), dy.transpose(1, 2).contiguous()
    arms = {
        "long_conv": lambda: torch.autograd.grad(long_conv(u, k), (u, k), dy),
        FLOOR: lambda: torch.autograd.grad(bare(turned, k), (turned, k), dy_turned),
        "bare, along dim 1 of (B, T, D)": lambda: torch.autograd.grad(strided(u, k), (u, k), dy),
        "reference": lambda: torch.autograd.grad(reference(u, k), (u, k), dy),
    }
    return Case(f"forward + backward ({B}, {T}, {D})", arms, FLOOR, check, goal=1.3, rounds=7)


def short_kernel(B: int, T: int, D: int, L: int) -> Case:
    u, k = torch.randn(B, T, D), torch.randn(D, L)
    arms = {
        "chunk_long_conv by 7 L": lambda: chunk_long_conv(u, k, 7 * L),
        "long_conv": lambda: long_conv(u, k),
    }
    return Case(f"{L} taps on ({B}, {T}, {D})", arms, "long_conv", check, rounds=7)
