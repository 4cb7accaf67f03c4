"""A convolution kernel that a small network writes: tap l of every channel from the position l alone.

    s = l / (L - 1)    w = 2 pi l / L    z_l = [s, cos(f_1 w), ..., -sin(f_1 w), ...]
    h_l = W_out sin(o * (W_n ... sin(o * (W_1 z_l + b_1)) ... + b_n))        k_l = h_l (exp(-|d| s) + shift)

The frequencies o are one learned vector that all layers share; d is one fixed decay a channel, from log(target) / slow
to log(target) / fast; W_out has no bias. L is the unit of time and never the length of the current row: otherwise the
filter would be another one at every length. The formula has a value at every l, so that a kernel longer than L goes on
where it was; only trained positions, one row of z a tap, end at L.

Shapes: C channels, T taps, L the unit of time, E features, F bands = (E - 1) / 2, W width of the network.
Source: Poli et al., "Hyena hierarchy: towards larger convolutional language models", 2023, arXiv:2302.10866, section
3.3 and appendix D.3; Nguyen et al., "HyenaDNA", 2023, arXiv:2306.15794 (fixed positions, five features, o = 10).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError


class ImplicitFilter(Component, nn.Module):
    """Kernels of any length from a network of a fixed size."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of the network and of its window."""

        length: int = 1024
        """The unit of time L: a kernel is as smooth and decays as slowly as this is long."""
        features: int = 5
        """Numbers that describe a position: the position itself, and a cosine and a sine for each band; odd."""
        width: int = 64
        """Channels of the inner layers."""
        layers: int = 2
        """Inner layers after the first one."""
        frequency: float = 10.0
        """Where the learned frequencies of the sines begin: higher ones begin with a rougher kernel."""
        window: bool = True
        """Whether the kernels decay at all."""
        fast: float = 0.3
        """Share of L at which the fastest channel has decayed to ``target``."""
        slow: float = 1.5
        """Share of L at which the slowest channel has."""
        target: float = 1e-2
        """What a window has decayed to there."""
        shift: float = 0.0
        """Added to every window: what never decays."""
        positions: bool = False
        """Train the features of the positions too, which then end at L."""

    def __init__(self, channels: int, config: Config | None = None) -> None:
        """Weights and biases begin as torch's linear layers do."""
        super().__init__()
        self.channels, self.config = channels, config or self.Config()
        options = self.config
        self._refuse(options)
        sizes = [options.features, *[options.width] * (options.layers + 1)]
        self.inner = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.frequency = nn.Parameter(torch.full((options.width,), float(options.frequency)))
        self.outer = nn.Linear(options.width, channels, bias=False)
        self.positions = nn.Parameter(self._features(options.length).float()) if options.positions else None

    def forward(self, length: int) -> Tensor:
        """The first taps of every channel (C, length), float32 or wider whatever the autocast."""
        weight = self.outer.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(weight.device.type, enabled=False):
            z_TW = self.features(length).to(dtype)
            for layer in self.inner:
                weight, bias = (value.to(dtype) for value in layer.parameters())
                z_TW = torch.sin(self.frequency.to(dtype) * linear(z_TW, weight, bias))
            k_CT = self.outer.weight.to(dtype) @ z_TW.T
            return k_CT if not self.config.window else k_CT * self.window(length).to(dtype)

    def features(self, length: int) -> Tensor:
        """What the network is told of each position (length, E)."""
        if self.positions is None:
            return self._features(length)
        if length > len(self.positions):
            raise ConfigError(f"implicit_filter: trained positions end at length {len(self.positions)}, not {length}")
        return self.positions[:length]

    def window(self, length: int) -> Tensor:
        """The factor of every tap (C, length)."""
        options, s_T = self.config, self._share(length)
        low, high = -math.log(options.target) / options.slow, -math.log(options.target) / options.fast
        rate_C = torch.linspace(low, high, self.channels, dtype=s_T.dtype, device=s_T.device)
        return torch.exp(-rate_C[:, None] * s_T) + options.shift

    @property
    def macs(self) -> int:
        """Multiply-adds of one tap of all channels."""
        return sum(layer.weight.numel() for layer in self.inner) + self.outer.weight.numel()  # type: ignore[union-attr]

    def _share(self, length: int) -> Tensor:
        weight = self.outer.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return torch.arange(length, device=weight.device, dtype=dtype) / max(self.config.length - 1, 1)

    def _features(self, length: int) -> Tensor:
        s_T, L = self._share(length), self.config.length
        bands = (self.config.features - 1) // 2
        # The lowest band is nearly constant, as in the authors' code: 1e-4 turns over the whole length.
        turns_F = torch.linspace(1e-4, max(bands - 1, 1e-4), bands, dtype=s_T.dtype, device=s_T.device)
        angle_TF = s_T[:, None] * (2 * math.pi * (max(L - 1, 1) / L)) * turns_F
        return torch.cat([s_T[:, None], angle_TF.cos(), -angle_TF.sin()], 1)

    def _refuse(self, options: Config) -> None:
        """Options that mean nothing."""
        if self.channels < 1:
            raise ConfigError(f"implicit_filter: channels must be at least 1, not {self.channels}")
        if options.length < 1 or options.width < 1 or options.layers < 0:
            sizes = f"{options.length}, {options.width} and {options.layers}"
            raise ConfigError(f"implicit_filter: length and width must be at least 1 and layers 0, not {sizes}")
        if options.features < 3 or options.features % 2 == 0:
            raise ConfigError(f"implicit_filter: features must be odd and at least 3, not {options.features}")
        if not (0 < options.target < 1 and 0 < options.fast <= options.slow):
            window = f"target {options.target}, fast {options.fast}, slow {options.slow}"
            raise ConfigError(f"implicit_filter: needs 0 < target < 1 and 0 < fast <= slow, not {window}")
        if options.frequency <= 0 or options.shift < 0:
            raise ConfigError(
                f"implicit_filter: frequency must be positive and shift not negative, "
                f"not {options.frequency} and {options.shift}"
            )
