"""monarch against the machine's own rate of matrix products at n = 4096, and against the dense map it replaces."""

from collections.abc import Iterator
from functools import cache

import torch

from seqloom.kernels.monarch import monarch
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel


@cache
def check() -> None:
    check_kernel(monarch, "torch_cpu")


def cases() -> Iterator[Case]:
    yield rate(4096, 256)
    yield training(4096, 256)
    yield dense(4096, 64)


def factors(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    b = round(n**0.5)
    return torch.randn(b, b, b), torch.randn(b, b, b)


def square(macs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two square matrices whose product is as many multiply-adds."""
    side = round(macs ** (1 / 3))
    return torch.randn(side, side), torch.randn(side, side)


def rate(n: int, columns: int) -> Case:
    """The goal: at least half of the rate of one square product of as many multiply-adds."""
    x, (left, right) = torch.randn(1, n, columns), factors(n)
    a, b = square(monarch.floor(x, left, right).macs)
    ratio = n * n * columns / monarch.floor(x, left, right).macs
    print(f"   multiply-adds of the dense product over those of the Monarch product: {ratio:.1f}")
    arms = {"monarch": lambda: monarch(x, left, right), "one square product of as many": lambda: a @ b}
    return Case(f"n = {n}, {columns} columns", arms, "one square product of as many", check, goal=2.0)


def training(n: int, columns: int) -> Case:
    x, left, right = torch.randn(1, n, columns), *factors(n)
    given = [value.requires_grad_() for value in (x, left, right)]
    dy = torch.randn(1, n, columns)
    a, b = square(3 * monarch.floor(x, left, right).macs)
    arms = {
        "monarch": lambda: torch.autograd.grad(monarch(*given), given, dy),
        "one square product of three times as many": lambda: a @ b,
    }
    floor = "one square product of three times as many"
    return Case(f"forward and backward, n = {n}, {columns} columns", arms, floor, check, goal=2.5)


def dense(n: int, columns: int) -> Case:
    x, (left, right), matrix = torch.randn(1, n, columns), factors(n), torch.randn(n, n)
    arms = {"monarch": lambda: monarch(x, left, right), "the dense matrix": lambda: matrix @ x[0]}
    return Case(f"n = {n}, {columns} columns, against n^2", arms, "the dense matrix", check, goal=0.2)
