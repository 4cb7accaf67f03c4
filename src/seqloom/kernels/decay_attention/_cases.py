from collections.abc import Iterator

import torch
from torch import Tensor


def forward_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Inputs of ``decay_attention``; the last case spans two chunks and more of every backend."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype)

    def inputs(B: int, T: int, heads: tuple[int, int], K: int, V: int, decays: Tensor) -> tuple[Tensor, ...]:
        H, G = heads
        return draw(B, T, G, K), draw(B, T, G, K), draw(B, T, H, V), decays, draw(B, H, K, V)

    def decay(*shape: int, spread: float = 1.0) -> Tensor:
        return -spread * torch.rand(*shape, generator=rng, dtype=dtype)

    def segments(B: int, T: int) -> Tensor:
        return (torch.rand(B, T, generator=rng) < 0.15).long().cumsum(1)

    yield (*inputs(1, 1, (1, 1), 1, 1, decay(1, 1, 1, 1)), None)
    yield (*inputs(2, 3, (2, 1), 2, 3, decay(2, 3, 2, 1)), torch.tensor([[0, 0, 1], [1, 1, 1]]))
    yield (*inputs(1, 5, (2, 2), 3, 2, decay(1, 1, 2, 1)), None)
    yield (*inputs(2, 0, (2, 1), 3, 2, decay(2, 0, 2, 1)), None)
    yield (*inputs(1, 4, (2, 2), 3, 5, decay(1, 1, 2, 3)), torch.tensor([[0, 1, 1, 2]]))
    yield (*inputs(1, 21, (4, 2), 5, 7, decay(1, 21, 4, 1, spread=60)), None)
    yield (*inputs(1, 37, (2, 1), 5, 3, decay(1, 37, 2, 5, spread=60)), segments(1, 37))
    yield (*inputs(1, 67, (2, 1), 17, 9, decay(1, 67, 2, 1)), segments(1, 67))
    yield (*inputs(1, 66, (2, 2), 6, 19, decay(1, 66, 2, 6)), None)
