"""gated_loop against its step loop and torch's LSTM and GRU, forwards and with gradients.

The floor of the forward pass is the recurrent products alone, one after the other as the recurrence has them, without
gates; the goal, at most twice that.
"""

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

from seqloom.kernels.gated_loop import GATES, STATES, gated_loop
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel


@cache
def check() -> None:
    check_kernel(gated_loop, "numba_cpu")


def cases() -> Iterator[Case]:
    for cell in ("lstm", "gru", "slstm"):
        yield forward(cell, 8, 512, 1, 128)
        yield training(cell, 8, 512, 1, 128)
    yield forward("slstm", 8, 2048, 4, 64)
    yield training("slstm", 8, 2048, 4, 64)


def draw(cell: str, B: int, T: int, H: int, K: int) -> tuple[Tensor, ...]:
    G = GATES[cell]
    pre_BTGHK, weight_GHJK = torch.randn(B, T, G, H, K), torch.randn(G, H, K, K) * K**-0.5
    return pre_BTGHK, weight_GHJK, torch.zeros(STATES[cell], B, H, K), torch.zeros(G, H, K)


def theirs(cell: str, B: int, T: int, H: int, K: int) -> tuple[nn.Module, Tensor] | None:
    """torch's layer, which multiplies the inputs by a matrix of their own width as well."""
    kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
    return (kinds[cell](H * K, H * K, batch_first=True), torch.randn(B, T, H * K)) if cell in kinds and H == 1 else None


def products(cell: str, B: int, T: int, H: int, K: int) -> Callable[[], object]:
    h, weight = torch.zeros(H, B, K), torch.randn(H, K, GATES[cell] * K)

    def call() -> object:
        for _ in range(T):
            out = torch.bmm(h, weight)
        return out

    return call


def forward(cell: str, B: int, T: int, H: int, K: int) -> Case:
    given = (*draw(cell, B, T, H, K), None, cell)
    arms: dict[str, Callable[[], object]] = {
        "gated_loop": lambda: gated_loop(*given),
        "step loop": lambda: gated_loop.reference(*given),
        "the recurrent products alone, torch": products(cell, B, T, H, K),
    }
    other = theirs(cell, B, T, H, K)
    if other is not None:
        arms["torch's layer, inputs' product too"] = lambda: other[0](other[1])
    floor = "the recurrent products alone, torch"
    return Case(f"{cell}, forward ({B}, {T}, {H}, {K})", arms, floor, check, goal=2.0, rounds=5)


def training(cell: str, B: int, T: int, H: int, K: int) -> Case:
    given = [value.requires_grad_() for value in draw(cell, B, T, H, K)]
    dy = torch.randn(B, T, H, K)
    arms: dict[str, Callable[[], object]] = {
        "gated_loop": lambda: torch.autograd.grad(gated_loop(*given, None, cell)[0], given, dy),
        "step loop": lambda: torch.autograd.grad(gated_loop.reference(*given, None, cell)[0], given, dy),
    }
    other = theirs(cell, B, T, H, K)
    if other is not None:
        layer, x = other[0], other[1].requires_grad_()
        into = [x, *layer.parameters()]
        arms["torch's layer, inputs' product too"] = lambda: torch.autograd.grad(layer(x)[0], into, dy[:, :, 0])
    return Case(f"{cell}, forward and backward ({B}, {T}, {H}, {K})", arms, "step loop", check, rounds=3)
