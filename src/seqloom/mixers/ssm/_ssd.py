"""What Mamba-2, Hydra and the matrix mixers share: step sizes, decays, heads, gated norms, and rows read backwards.

    dt = softplus(dt~ + b)      a = exp(-exp(A) dt)      rms(y * silu(z)) w  or  rms(y) w * silu(z)

Shapes: B batch, T time, E channels, H heads, G groups of a norm.
Source: Dao and Gu, "Transformers are SSMs", 2024, arXiv:2405.21060, section 7; Gu and Dao, "Mamba", 2023,
arXiv:2312.00752, section 3.6 (step sizes at the start).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from seqloom.core.errors import ConfigError

EPS = 1e-5
LEAST_STEP = 1e-4
"""Step sizes at the start are no smaller, as in the authors' code."""
WIDEST_HEAD = 64


def split_heads(channels: int, head_width: int) -> tuple[int, int]:
    """Heads and their width; 0 asks for 64 channels, or for the largest power of two below that divides."""
    width = head_width or math.gcd(channels, WIDEST_HEAD)
    if width < 1 or channels % width:
        raise ConfigError(f"head_width must divide the {channels} inner channels, and {head_width} does not")
    return channels // width, width


def step_logits(heads: int, steps: tuple[float, float]) -> Tensor:
    """What softplus turns into step sizes that are log-uniform in a range."""
    low, high = steps
    if not 0 < low <= high:
        raise ConfigError(f"steps must be a positive range, low first, not {steps}")
    step_H = torch.empty(heads, dtype=torch.float64).uniform_(math.log(low), math.log(high)).exp()
    step_H = step_H.clamp_min(LEAST_STEP)
    return (step_H + (-torch.expm1(-step_H)).log()).float()


def decay_logs(heads: int, decay: tuple[float, float]) -> Tensor:
    """Logarithms of rates that are uniform in a range."""
    low, high = decay
    if not 0 < low <= high:
        raise ConfigError(f"decay must be a positive range, low first, not {decay}")
    return torch.empty(heads, dtype=torch.float64).uniform_(low, high).log().float()


class GatedNorm(nn.Module):
    """Root-mean-square norm of each group of channels, with the gate before it (Mamba-2) or after it (Hydra)."""

    def __init__(self, channels: int, groups: int = 1, *, gate_last: bool = False) -> None:
        super().__init__()
        self.groups, self.gate_last = groups, gate_last
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, y_BTE: Tensor, z_BTE: Tensor) -> Tensor:
        """Normalise in the dtype of ``y_BTE``."""
        gate_BTE = silu(z_BTE.to(y_BTE.dtype))
        y_BTE = y_BTE if self.gate_last else y_BTE * gate_BTE
        group_BTGE = y_BTE.unflatten(-1, (self.groups, -1))
        y_BTE = rms_norm(group_BTGE, group_BTGE.shape[-1:], eps=EPS).flatten(-2) * self.weight.to(y_BTE.dtype)
        return y_BTE * gate_BTE if self.gate_last else y_BTE


def backwards(x_BT: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Each row's valid columns in reverse order (B, T, ...); pads stay on the right. Its own inverse."""
    if lengths_B is None:
        return x_BT.flip(1)
    column_T = torch.arange(x_BT.shape[1], device=x_BT.device)
    last_B1 = lengths_B[:, None] - 1
    column_BT = torch.where(column_T <= last_B1, last_B1 - column_T, column_T)
    return x_BT[torch.arange(len(x_BT), device=x_BT.device)[:, None], column_BT]
