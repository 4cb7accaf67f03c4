"""Hyena: gates and long convolutions in turn, each kernel written by a small network.

    [x_0, ..., x_{n-1}, v] = conv_3(W x + b)        v <- x_{n-1} * v
    v <- (h^o * v + s^o v) x_{n-2-o}    for o = 0 .. n - 2        y = W_y v + b_y

n is the order; at order 2 this is y = W_y (x_0 * (h * (x_1 v) + s x_1 v)). The convolution of three taps before the
gates has a bias, s is a learned extra tap at lag 0, and the kernels h are those of ``layers/implicit_filter``, whose
unit of time is fixed: they do not change with the length of a row. Without ``causal`` the short convolution is centred
and a second network writes the kernels over the future, from lag -1 on.

There is no constant state: a step needs every earlier input of each convolution. It costs O(log^2 t) a channel (relaxed
convolution), not O(t).

Shapes: B batch, T time, D width, n order, C = (n + 1) D channels of the short convolution, K inputs that it keeps,
M taps of a kernel.
Source: Poli et al., "Hyena hierarchy: towards larger convolutional language models", 2023, arXiv:2302.10866, section 3;
Nguyen et al., "HyenaDNA: long-range genomic sequence modeling at single nucleotide resolution", 2023, arXiv:2306.15794.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.gated_long_conv import gated_long_conv
from seqloom.kernels.long_conv.relaxed import Taps
from seqloom.kernels.short_conv import short_conv
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.conv._history import History, Memo, is_plain


class Hyena(Mixer):
    """Gated long convolutions; its state is every input of each of them."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position."""

        in_place = True

        inputs_BKC: Tensor
        """What the short convolution still sees."""
        streams: tuple[History, ...]
        """One a long convolution."""
        memo: Memo = field(default_factory=Memo, compare=False)
        """Kernels, as long as the parameters stay: not a part of what was consumed."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of Hyena."""

        order: int = 2
        """Gates n; n - 1 of them are followed by a long convolution."""
        conv: int = 3
        """Taps of the short convolution before the gates; odd where not causal."""
        causal: bool = True
        """False adds kernels over the future; there is no step then."""
        filter: ImplicitFilter.Config = ImplicitFilter.Config()
        """The network that writes the kernels; its ``length`` is the unit of time."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of that network, which also gets no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Causal to rounding, every input is kept; only trained positions end anywhere."""
        bound = config.filter.length if config.filter.positions else None
        if config.causal:
            return Traits(causal="fft", step="history", rollback="recorded", sequence_comm="state", length_bound=bound)
        return Traits(
            causal="no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="native",
            length_bound=bound,
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        small = ImplicitFilter.Config(length=16, features=3, width=8, layers=1, frequency=1.0)
        return (
            cls.Config(),
            cls.Config(order=4, filter=small),
            cls.Config(order=3, conv=1, filter=replace(small, layers=0, slow=0.8)),
            cls.Config(conv=4, filter=replace(small, length=600, fast=0.1, slow=0.2, positions=True)),
            cls.Config(causal=False),
            cls.Config(causal=False, order=3, conv=5, filter=replace(small, length=13)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.order < 2:
            raise ConfigError(f"hyena: order must be at least 2, not {options.order}")
        if options.conv < 1 or not (options.causal or options.conv % 2):
            raise ConfigError(f"hyena: conv must be at least 1, and odd where not causal, not {options.conv}")
        channels, streams = (options.order + 1) * width, (options.order - 1) * width
        self.into, self.out = Linear(width, channels), Linear(width, width)
        reach = options.conv**-0.5
        self.conv_weight = nn.Parameter(torch.empty(channels, options.conv).uniform_(-reach, reach))
        self.conv_bias = nn.Parameter(torch.empty(channels).uniform_(-reach, reach))
        self.past = ImplicitFilter(streams, options.filter)
        self.future = None if options.causal else ImplicitFilter(streams, options.filter)
        self.skip = nn.Parameter(torch.randn(options.order - 1, width))

    @property
    def wide(self) -> torch.dtype:
        """Dtype of kernels and states."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Empty lines of ``capacity`` slots; beyond them they grow by doubling."""
        if not self.config.causal:
            return super().initial_state(batch, capacity=capacity)
        new, C = self.skip.new_zeros, self.into.out_features
        return self.State(
            inputs_BKC=new(batch, self.config.conv - 1, C, dtype=self.wide),
            streams=tuple(
                History(line_BLD=new(batch, capacity or 0, self.width, dtype=self.wide), length_B=self.no_length(batch))
                for _ in self.skip
            ),
            length_B=self.no_length(batch),
        )

    def kernels(self, length: int) -> Tensor:
        """Kernels (n - 1, D, length) on the past, without s."""
        return self._turned(self.past(length))

    def param_groups(self) -> list[ParamGroup]:
        """The networks: a small learning rate, no weight decay; trained positions a hundredth of it, as published."""
        names = [name for name, _ in self.named_parameters() if name.split(".")[0] in ("past", "future")]
        slow = tuple(name for name in names if name.endswith(".positions"))
        rate = self.config.learning_rate
        groups = [ParamGroup(names=tuple(name for name in names if name not in slow), lr=rate)]
        return [*groups, ParamGroup(names=slow, lr=rate / 100)] if slow else groups

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, convolve shortly, then gate and convolve in turn."""
        options, length = self.config, x_BTD.shape[1]
        ahead, before = 0 if options.causal else options.conv // 2, None if state is None else state.inputs_BKC
        weight, bias, lengths_B = self.conv_weight, self.conv_bias, layout.lengths_B
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        into_BTC = self.into(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            weight, bias = weight.to(into_BTC.dtype), bias.to(into_BTC.dtype)
            short_BTC, inputs_BKC = short_conv(into_BTC, weight, bias, before, None, lengths_B, "none", ahead)
            *gates, v_BTD = short_BTC.split(self.width, 2)
            streams: tuple[History, ...] = ()
            if state is None:
                v_BTD = self._whole(gates, v_BTD)
            else:
                v_BTD, streams = self._onward(gates, v_BTD, state, lengths_B)
        y_BTD = self.out(v_BTD.to(into_BTC.dtype))
        if state is None:
            return y_BTD, None
        after_B = layout.advance(state.length_B, length)
        return y_BTD, replace(state, inputs_BKC=inputs_BKC, streams=streams, length_B=after_B, trail=None)

    def flops(self, length: int) -> int:
        """Projections, the short convolution, the networks at every tap, and the transforms."""
        D, ways = self.width, 1 if self.config.causal else 2
        macs = length * (self.into.weight.numel() + self.out.weight.numel() + self.conv_weight.numel())
        macs += ways * length * self.past.macs
        with torch.device("meta"):
            v, k = torch.empty(1, length, D), torch.empty(D, length)
        macs += len(self.skip) * gated_long_conv.floor(v, k, None if ways == 1 else k).macs
        return 2 * macs

    def state_bytes(self, length: int) -> int:
        """An input a position, channel and long convolution, what the short one keeps, and the lengths."""
        kept = (self.config.conv - 1) * self.into.out_features + length * self.skip.numel()
        return kept * self.wide.itemsize + (1 + len(self.skip)) * torch.long.itemsize

    def _turned(self, k_XT: Tensor) -> Tensor:
        """Channels as the network has them, those of one width position side by side, by convolution (n - 1, D, T)."""
        return k_XT.unflatten(0, (self.width, -1)).transpose(0, 1)

    def _whole(self, gates: list[Tensor], v_BTD: Tensor) -> Tensor:
        """From nothing: each gate is multiplied within the convolution beside it."""
        length, last = v_BTD.shape[1], len(self.skip) - 1
        k_ODT = self.kernels(length)
        back_ODT = None if self.future is None else self._turned(self.future(length))
        for o, skip_D in enumerate(self.skip):
            back = None if back_ODT is None else back_ODT[o]
            pre = gates[-1] if o == 0 else None
            v_BTD = gated_long_conv(v_BTD, k_ODT[o], back, skip_D, pre, gates[last - o])
        return v_BTD

    def _onward(
        self, gates: list[Tensor], v_BTD: Tensor, state: Any, lengths_B: Tensor | None
    ) -> tuple[Tensor, tuple[History, ...]]:
        """From a state: sums with all earlier inputs."""
        length, streams = v_BTD.shape[1], []
        taps = self._taps(state, length)
        v_BTD = v_BTD.to(self.wide) * gates[-1]
        for o, (stream, skip_D) in enumerate(zip(state.streams, self.skip, strict=True)):
            y_BTD, stream = stream.room(length).convolve(v_BTD, taps[o], lengths_B)
            v_BTD = (y_BTD + skip_D * v_BTD) * gates[len(self.skip) - 1 - o]
            streams.append(stream)
        return v_BTD, tuple(streams)

    def _taps(self, state: Any, length: int) -> tuple[Taps, ...]:
        def make(length: int) -> tuple[Taps, ...]:
            return tuple(Taps(k_DL) for k_DL in self.kernels(length))

        first, bound = state.streams[0], self.can.length_bound
        reached = first.filled + length
        if bound is not None and reached > bound:
            raise ConfigError(f"Hyena reaches {bound} positions with these options, not {reached}")
        if is_plain():
            return make(reached)
        slots = first.room(length).line_BLD.shape[1]
        return state.memo.at(slots if bound is None else min(slots, bound), self.past.parameters(), make)
