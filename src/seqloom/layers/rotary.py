"""Rotary position encoding: pairs of channels turn by an angle that grows with the position.

    (a, b) at position p  ->  (a cos(p w_i) - b sin(p w_i),  a sin(p w_i) + b cos(p w_i)),    w_i = theta^(-2i / R)

so that the product of a query at p and a key at s depends on p - s alone.

Shapes: B batch (1 where all rows agree), T time, H heads, K head width, R = K * fraction channels that turn.
Source: Su et al., "RoFormer", 2021, arXiv:2104.09864, section 3.4. The pairing by halves is that of GPT-NeoX and
Llama, the interleaved one that of the paper and of GPT-J.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError


class Rotary(Component, nn.Module):
    """Turns queries and keys by their positions; has no parameters and no longest position."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """How fast and which channels turn."""

        theta: float = 10000.0
        """Base of the wave lengths: the slowest pair turns once in about 2 pi theta positions."""
        fraction: float = 1.0
        """Share of the channels that turn, from the first; the others carry no position."""
        pairs: Literal["half", "interleaved"] = "half"
        """half: channel i pairs with i + R/2 (Llama); interleaved: 2i with 2i + 1 (GPT-J)."""

    def __init__(self, width: int, config: Config | None = None) -> None:
        """``width`` is that of one head."""
        super().__init__()
        self.width, self.config = width, config or self.Config()
        if not 0 < self.config.fraction <= 1 or self.config.theta <= 1:
            raise ConfigError(f"rotary needs 0 < fraction <= 1 and theta > 1, not {self.config}")
        if self.config.pairs not in ("half", "interleaved"):
            raise ConfigError(f"rotary pairs are 'half' or 'interleaved', not {self.config.pairs!r}")
        self.turned = int(width * self.config.fraction) // 2 * 2
        if self.turned == 0:
            raise ConfigError(f"rotary turns pairs of channels: {self.config.fraction} of {width} channels holds none")

    def forward(self, x_BTHK: Tensor, where_BT: Tensor) -> Tensor:
        """Turn every head of every token by its position. Angles are float32 or wider whatever the dtype of ``x``."""
        R = self.turned
        cos_BT1P, sin_BT1P = self.table(where_BT, torch.promote_types(x_BTHK.dtype, torch.float32))
        if self.config.pairs == "half":
            a, b = x_BTHK[..., : R // 2], x_BTHK[..., R // 2 : R]
        else:
            a, b = x_BTHK[..., 0:R:2], x_BTHK[..., 1:R:2]
        turned = (a * cos_BT1P - b * sin_BT1P, a * sin_BT1P + b * cos_BT1P)
        y_BTHR = torch.cat(turned, -1) if self.config.pairs == "half" else torch.stack(turned, -1).flatten(-2)
        y_BTHR = y_BTHR.to(x_BTHK.dtype)
        return y_BTHR if self.width == R else torch.cat([y_BTHR, x_BTHK[..., R:]], -1)

    def table(self, where_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, T, 1, R/2)."""
        make = _frequencies if torch.compiler.is_compiling() else _kept_frequencies
        angle_BT1P = where_BT[..., None, None] * make(self.turned, self.config.theta, where_BT.device, dtype)
        return angle_BT1P.cos(), angle_BT1P.sin()


def _frequencies(turned: int, theta: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Radians a position of each pair (P,)."""
    i_P = torch.arange(0, turned, 2, device=device, dtype=dtype)
    return theta ** (-i_P / turned)


@lru_cache(maxsize=64)
def _kept_frequencies(turned: int, theta: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The same constants, which a step would otherwise make anew in every layer."""
    with torch.inference_mode(False):  # what is kept may meet gradients later
        return _frequencies(turned, theta, device, dtype)
