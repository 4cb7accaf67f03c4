"""A pair of learned lower triangular Monarch matrices over time, ones on their diagonals, that begin as the identity.

    first: x -> T_1 x        second_inverse: y -> T_2^-1 y        T[(l, k), (i, j)] = left_kli right_ikj

A shorter row meets the upper left part of T, whose inverse is the upper left part of the inverse.

Shapes: B batch, T time, C columns, N = I J positions of both matrices (at least ``length``), I high and J low digit.
Source: Fu et al., "Monarch Mixer", 2023, arXiv:2310.12109, section 3.2 and appendix C (causal Monarch matrices).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.kernels.monarch import monarch
from seqloom.kernels.monarch.factors import invert, leading, split


class Triangular(nn.Module):
    """T_1 and T_2; of each block only what lies below the diagonal is a parameter."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.high, self.low = split(length)
        if self.high < 2:
            raise ConfigError(f"monarch_mixer: filter.length must be at least 2 for the form monarch, not {length}")
        self.parts = [self.low * _below(self.high), self.high * _below(self.low)]
        self.below = nn.Parameter(torch.zeros(2, sum(self.parts)))

    def size(self, length: int) -> int:
        """Positions of the part of the matrices that a row of this length meets."""
        return self._rows(length) * self.low

    def first(self, x_BTC: Tensor) -> Tensor:
        """T_1 x (B, N, C), for the positions that T reaches into."""
        return self._meet(0, x_BTC)

    def second_inverse(self, x_BTC: Tensor) -> Tensor:
        """T_2^-1 x (B, N, C)."""
        return self._meet(1, x_BTC)

    def macs(self, length: int, columns: int) -> int:
        """Multiply-adds of T_1 on the kernels and on one row, of T_2^-1 on one row, and of the inverse."""
        r, J = self._rows(length), self.low
        return 3 * columns * r * J * (r + J) + r * J * (r * r + J * J) // 2

    def factors(self, which: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Left and right factor of the first ``rows`` high digits of T_1 (0) or T_2 (1)."""
        left_X, right_X = self.below[which].to(dtype).split(self.parts)
        left, right = _unpacked(left_X, self.low, self.high), _unpacked(right_X, self.high, self.low)
        return leading(left, right, rows)

    def _meet(self, which: int, x_BTC: Tensor) -> Tensor:
        length = x_BTC.shape[1]
        x_BNC = pad(x_BTC, (0, 0, 0, self.size(length) - length))
        left, right = self.factors(which, self._rows(length), x_BTC.dtype)
        return monarch(x_BNC, *invert(left, right), True, True) if which else monarch(x_BNC, left, right)

    def _rows(self, length: int) -> int:
        return -(-length // self.low)


def _below(size: int) -> int:
    return size * (size - 1) // 2


def _unpacked(below_X: Tensor, blocks: int, size: int) -> Tensor:
    """Blocks (G, size, size) with ones on their diagonals from what lies below."""
    row_Y, column_Y = torch.tril_indices(size, size, -1, device=below_X.device)
    block_G1 = torch.arange(blocks, device=below_X.device)[:, None]
    eye = torch.eye(size, dtype=below_X.dtype, device=below_X.device).expand(blocks, -1, -1)
    return eye.index_put((block_G1, row_Y, column_Y), below_X.view(blocks, -1))
