"""decay_attention and the mLSTM cell against their step loops at 2048 columns, and against plain matrix products.

The floor is the matrix products that no chunked form can do without, at one batched product each: scores within chunks
of 64 columns, their product with the values, and the states written and read once a chunk.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seqloom.kernels.decay_attention import decay_attention, normalised_decay_attention
from seqloom.testing.benchmark import Case
from seqloom.testing.kernels import check_kernel

CHUNK = 64


@cache
def check() -> None:
    check_kernel(decay_attention, "numba_cpu")


def cases() -> Iterator[Case]:
    for decays in (1, 64):
        yield forward(2, 2048, 4, 64, decays)
        yield training(2, 2048, 4, 64, decays)
    yield cell(2, 2048, 4, 64)


def draw(B: int, T: int, H: int, K: int, decays: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(B, T, H, K) for _ in range(3))
    return q, k, v, -0.1 * torch.rand(B, T, H, decays), torch.randn(B, H, K, K)


def floor_of(B: int, T: int, H: int, K: int):
    """The products alone, on data of the right shapes."""
    rows = B * H * (T // CHUNK)
    q, k, v = (torch.randn(rows, CHUNK, K) for _ in range(3))
    s = torch.randn(rows, K, K)
    return lambda: ((q @ k.mT) @ v + q @ s, k.mT @ v)


def forward(B: int, T: int, H: int, K: int, decays: int) -> Case:
    given = draw(B, T, H, K, decays)
    arms = {
        "decay_attention": lambda: decay_attention(*given),
        "step loop": lambda: decay_attention.reference(*given),
        "its matrix products alone": floor_of(B, T, H, K),
    }
    name = f"forward ({B}, {T}, {H}, {K}, {K}), {decays} decay(s) a head"
    return Case(name, arms, "step loop", check, goal=0.1, rounds=5)


def training(B: int, T: int, H: int, K: int, decays: int) -> Case:
    given = [value.requires_grad_() for value in draw(B, T, H, K, decays)]
    dy = torch.randn(B, T, H, K)
    arms = {
        "decay_attention": lambda: torch.autograd.grad(decay_attention(*given)[0], given, dy),
        "autograd through the loop": lambda: torch.autograd.grad(decay_attention.reference(*given)[0], given, dy),
    }
    name = f"forward and backward ({B}, {T}, {H}, {K}, {K}), {decays} decay(s) a head"
    return Case(name, arms, "autograd through the loop", check, goal=0.1, rounds=3)


def cell(B: int, T: int, H: int, K: int) -> Case:
    """The mLSTM's, with gates and normaliser; the loop is the same cell a column at a time."""
    q, k, v, _, c = draw(B, T, H, K, 1)
    f, i = logsigmoid(torch.randn(B, T, H)), torch.randn(B, T, H)
    state = c, torch.randn(B, H, K), torch.zeros(B, H)

    def steps() -> object:
        now = state
        for t in range(T):
            here = (x[:, t : t + 1] for x in (q, k, v, f, i))
            _, *now = normalised_decay_attention(*here, *now)
        return now

    arms = {"the cell": lambda: normalised_decay_attention(q, k, v, f, i, *state), "step loop": steps}
    return Case(f"mLSTM cell ({B}, {T}, {H}, {K}, {K})", arms, "step loop", check, goal=0.1, rounds=3)
