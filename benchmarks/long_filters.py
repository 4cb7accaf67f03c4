"""Long convolutions of Hyena and SGConv: time over length, training against its transforms, online steps."""

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from seqloom.kernels.gated_long_conv import gated_long_conv
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv.relaxed import Taps, relaxed_step
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.mixers.conv.hyena import Hyena
from seqloom.mixers.conv.sgconv import SGConv
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel
from seqloom.testing.mixers import check_mixer

SLOPE = 1.25
"""Largest exponent of the time over the length."""
LENGTHS = (1 << 13, 1 << 20)


@cache
def check_gated() -> None:
    check_kernel(gated_long_conv, "torch_cpu")


@cache
def check_mixing() -> None:
    for config in (Hyena.Config(), SGConv.Config()):
        check_mixer(config, checks=["continuation", "causality", "padding"])


def cases() -> Iterator[Case]:
    yield training(4, 4096, 256)
    yield training(1, 65536, 64)
    yield scaling("hyena", Hyena(16, Hyena.Config(filter=ImplicitFilter.Config(length=LENGTHS[1], width=16))), *LENGTHS)
    yield scaling("sgconv", SGConv(16, SGConv.Config(length=LENGTHS[1])), *LENGTHS)
    yield online(16384, 64)
    yield online(16384, 256)


def training(B: int, T: int, D: int) -> Case:
    """Forward and backward of one gated convolution; the floor is the six transforms and the kernel's three."""
    v, pre, post = (torch.randn(B, T, D, requires_grad=True) for _ in range(3))
    k, dy = torch.randn(D, T, requires_grad=True), torch.randn(B, T, D)
    turned, kernel, n = torch.randn(B, D, T), torch.randn(D, T), 2 * T
    into = (v, k, pre, post)

    def unfused() -> object:
        return torch.autograd.grad(long_conv(v * pre, k) * post, into, dy)

    def bare() -> object:
        """Two transforms forward, four backward; those of the kernel are D, not B D."""
        kernel_DF = torch.fft.rfft(kernel, n)
        out = torch.fft.irfft(torch.fft.rfft(turned, n) * kernel_DF, n)
        u_BDF, dy_BDF = torch.fft.rfft(turned, n), torch.fft.rfft(turned, n)
        again = torch.fft.irfft(u_BDF * kernel_DF, n)
        du = torch.fft.irfft(dy_BDF * kernel_DF, n)
        return out, again, du, torch.fft.irfft((u_BDF.conj() * dy_BDF).sum(0), n)

    floor = "the transforms alone"
    arms = {
        "gated_long_conv": lambda: torch.autograd.grad(gated_long_conv(v, k, None, None, pre, post), into, dy),
        floor: bare,
        "long_conv and two products": unfused,
    }
    return Case(f"forward and backward ({B}, {T}, {D})", arms, floor, check_gated, goal=1.3, rounds=7)


def scaling(name: str, mixer: torch.nn.Module, short: int, long: int) -> Case:
    """The same mixer on a short and on a long row; the goal is the ratio that the slope allows."""
    few, many = (torch.randn(1, length, 16) for length in (short, long))

    def run(x: Tensor) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return mixer(x)[0]

        return call

    floor, goal = f"{short} positions", (long / short) ** SLOPE
    arms = {f"{long} positions": run(many), floor: run(few)}
    return Case(f"{name}, slope {SLOPE} from {short} to {long}", arms, floor, check_mixing, goal=goal, rounds=3)


def online(T: int, D: int) -> Case:
    """A row of T steps against as many dot products with the whole history; the latter are timed at every 64th step."""
    u, k = torch.randn(T, 1, D), torch.randn(D, T)

    def relaxed() -> object:
        line, taps = torch.zeros(1, T, D), Taps(k)
        for t in range(T):
            relaxed_step(line, u[t], taps, t, t)
        return line

    line, taps_TD = torch.randn(1, T, D), k.flip(1).T.contiguous()

    def naive() -> object:
        """Every 64th step, run 64 times over, so that both arms make T steps."""
        for t in range(32, T, 64):
            for _ in range(64):
                (line[:, : t + 1] * taps_TD[T - t - 1 :]).sum(1)

    def check() -> None:
        size = 300
        line = torch.zeros(1, size, D)
        taps = Taps(k[:, :size].contiguous())
        got = torch.stack([relaxed_step(line, u[t], taps, t, t) for t in range(size)], 1)
        torch.testing.assert_close(got, long_conv(u[:size].transpose(0, 1), k[:, :size]), rtol=1e-3, atol=1e-3)

    return Case(f"{T} steps of {D} channels", {"relaxed": relaxed, "naive": naive}, "naive", check, goal=0.1, rounds=1)
