"""A linear map whose matrix is two block-diagonal factors with a permutation between them, or one such factor.

    monarch:  y_(l, k) = sum_i left_kli sum_j right_ikj x_(i, j) + b        blocks:  y^h = W^h x^h + b^h

With b blocks the first has b (N + M) weights and multiply-adds instead of N M, 2 N^1.5 for a square map at its default;
every output still reads every input. Blocks alone never mix: they need dense maps around them, as a sequence mixer's
are. Sizes that the blocks do not divide are padded in the first kind and refused in the second.

Shapes: x (..., N), y (..., M); I = K = b blocks, J = N / b and L = M / b rounded up, R rows.
Source: Fu et al., "Monarch Mixer: a simple sub-quadratic GEMM-based architecture", 2023, arXiv:2310.12109, sections 3.1
and 4; Dao et al., "Monarch: expressive structured matrices for efficient and accurate training", 2022,
arXiv:2204.00595, section 3.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.kernels.monarch import monarch

BLOCKS = 4
"""Blocks of a block-diagonal map where nothing else is said, as published."""


class Monarch(nn.Module):
    """Structured linear map from ``inputs`` to ``outputs`` channels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int = 0,
        kind: Literal["monarch", "blocks"] = "monarch",
        bias: bool = True,
    ) -> None:
        """``blocks``: 0 = the root of the smaller size, or 4 for a block-diagonal map.

        Outputs begin as large as those of torch's linear layer: the weights are larger by the root of how many fewer
        of them an output reads.
        """
        super().__init__()
        if kind not in ("monarch", "blocks") or min(inputs, outputs) < 1 or blocks < 0:
            given = f"{inputs}, {outputs}, {blocks} and {kind!r}"
            raise ConfigError(
                f"monarch: sizes must be positive, blocks at least 0, kind monarch or blocks, not {given}"
            )
        self.inputs, self.outputs, self.kind = inputs, outputs, kind
        self.blocks = blocks or (BLOCKS if kind == "blocks" else math.isqrt(min(inputs, outputs)))
        if self.blocks > min(inputs, outputs) or (kind == "blocks" and (inputs % self.blocks or outputs % self.blocks)):
            raise ConfigError(f"monarch: {self.blocks} blocks do not fit a map from {inputs} to {outputs} ({kind})")
        b, J, L = self.blocks, -(-inputs // self.blocks), -(-outputs // self.blocks)
        reach = (b / inputs) ** 0.5
        if kind == "blocks":
            self.right, self.left = _uniform(reach, b, L, J), None
        else:
            self.right, self.left = _uniform(3**0.5 * reach, b, b, J), _uniform(b**-0.5, b, L, b)
        self.bias = _uniform(inputs**-0.5, outputs) if bias else None

    @property
    def weight(self) -> Tensor:
        """The factor next to the output: scaling it scales the map."""
        return self.right if self.left is None else self.left

    @property
    def macs(self) -> int:
        """Multiply-adds of one row."""
        return self.right.numel() + (0 if self.left is None else self.left.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        device, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            x_RN = x.to(dtype).reshape(-1, self.inputs)
            y_RM = self._blocks(x_RN) if self.left is None else self._monarch(x_RN, self.left)
            y = y_RM.view(*x.shape[:-1], self.outputs)
            return y if self.bias is None else y + self.bias.to(dtype)

    def _monarch(self, x_RN: Tensor, left: Tensor) -> Tensor:
        x_RN = pad(x_RN, (0, self.blocks * self.right.shape[2] - self.inputs))
        y_RM = monarch(x_RN[..., None], left.to(x_RN.dtype), self.right.to(x_RN.dtype))[..., 0]
        return y_RM if y_RM.shape[1] == self.outputs else y_RM[:, : self.outputs].contiguous()

    def _blocks(self, x_RN: Tensor) -> Tensor:
        x_HRK = x_RN.unflatten(1, (self.blocks, -1)).transpose(0, 1)
        return torch.bmm(x_HRK, self.right.to(x_RN.dtype).mT).transpose(0, 1).reshape(-1, self.outputs)


def _uniform(reach: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-reach, reach))
