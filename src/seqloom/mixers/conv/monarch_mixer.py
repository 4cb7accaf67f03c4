"""Monarch Mixer: one gated long convolution, a second one of the layer's input beside it, and learned transforms.

    [x_1, x_2, v] = conv_3(W x + b)        y = x_2 * (h * (x_1 v) + s x_1 v) + (g * x + r x)        out = W_y y + b_y

h and g are kernels that small networks write (``layers/implicit_filter``), s and r learned extra taps at lag 0. Without
``causal`` networks of their own write kernels over the future, from lag -1 on, so that lag 0 counts once; the short
convolution stays causal, as published.

The form ``monarch`` learns the transforms around the convolution, with both kernels and both inputs:

    h * u   becomes   T_2^-1 [ (T_1 u) * (T_1 h) ]

T_1 and T_2 are lower triangular Monarch matrices over time, shared by all channels, with ones on their diagonals, which
keeps them invertible; both begin as the identity, and the form then is the form ``fft``. Nothing looks ahead, whatever
they learn, but they are not invariant in time and end at ``filter.length``.

There is no constant state: a step needs every earlier input of both convolutions (O(log^2 t) a channel).

Shapes: B batch, T time, D width, C = 3 D channels of the short convolution, K inputs that it keeps, R long ones.
Source: Fu et al., "Monarch Mixer: a simple sub-quadratic GEMM-based architecture", 2023, arXiv:2310.12109, section 4
and appendix C; the residual convolution and the order of the gates: its published code.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.gated_long_conv import gated_long_conv
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv.relaxed import Taps
from seqloom.kernels.short_conv import short_conv
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.conv._history import History, Memo, is_plain
from seqloom.mixers.conv._triangular import Triangular


class MonarchMixer(Mixer):
    """Gated long convolution with a convolution beside it; its state is every input of both."""

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
        """Options of the Monarch Mixer."""

        form: Literal["fft", "monarch"] = "fft"
        """How the long convolutions are computed; monarch learns transforms, which end at ``filter.length``."""
        causal: bool = True
        """False adds kernels over the future; there is no step then."""
        conv: int = 3
        """Taps of the short convolution before the gates."""
        residual: bool = True
        """Add a long convolution of the layer's input itself."""
        filter: ImplicitFilter.Config = ImplicitFilter.Config(width=128)
        """The networks that write the kernels; their ``length`` is the unit of time."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of these networks, which also get no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Causal to rounding, every input is kept; learned transforms are of one length and go on from nothing."""
        ends = config.form == "monarch" or config.filter.positions
        bound = config.filter.length if ends else None
        if config.causal and config.form == "fft":
            return Traits(causal="fft", step="history", rollback="recorded", sequence_comm="state", length_bound=bound)
        return Traits(
            causal="fft" if config.causal else "no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="no" if config.causal else "native",
            length_bound=bound,
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        small = ImplicitFilter.Config(length=60, features=3, width=8, layers=1, frequency=1.0, shift=0.05)
        return (
            cls.Config(),
            cls.Config(residual=False, conv=1, filter=replace(small, shift=0.0)),
            cls.Config(conv=4, filter=replace(small, length=600, positions=True)),
            cls.Config(causal=False),
            cls.Config(form="monarch", filter=replace(small, length=40)),
            cls.Config(form="monarch", residual=False, filter=replace(small, length=33)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        _refuse(options)
        channels, reach = 3 * width, options.conv**-0.5
        self.into, self.out = Linear(width, channels), Linear(width, width)
        self.conv_weight = nn.Parameter(torch.empty(channels, options.conv).uniform_(-reach, reach))
        self.conv_bias = nn.Parameter(torch.empty(channels).uniform_(-reach, reach))
        streams = 2 if options.residual else 1
        self.past = nn.ModuleList(ImplicitFilter(width, options.filter) for _ in range(streams))
        self.future = nn.ModuleList(
            ImplicitFilter(width, options.filter) for _ in range(0 if options.causal else streams)
        )
        self.skip = nn.Parameter(torch.randn(streams, width))
        self.transforms = Triangular(options.filter.length) if options.form == "monarch" else None

    @property
    def wide(self) -> torch.dtype:
        """Dtype of kernels and states."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Empty lines of ``capacity`` slots; beyond them they grow by doubling."""
        if self.can.step == "none":
            return super().initial_state(batch, capacity=capacity)
        new = self.skip.new_zeros
        lines = [new(batch, capacity or 0, self.width, dtype=self.wide) for _ in self.skip]
        return self.State(
            inputs_BKC=new(batch, self.config.conv - 1, 3 * self.width, dtype=self.wide),
            streams=tuple(History(line_BLD=line_BLD, length_B=self.no_length(batch)) for line_BLD in lines),
            length_B=self.no_length(batch),
        )

    def kernels(self, length: int) -> Tensor:
        """Kernels (R, D, length) on the past, without s and r."""
        return torch.stack([network(length) for network in self.past])

    def param_groups(self) -> list[ParamGroup]:
        """The networks: a small learning rate, no weight decay; trained positions a hundredth of it."""
        names = [name for name, _ in self.named_parameters() if name.split(".")[0] in ("past", "future")]
        slow = tuple(name for name in names if name.endswith(".positions"))
        rate = self.config.learning_rate
        groups = [ParamGroup(names=tuple(name for name in names if name not in slow), lr=rate)]
        return [*groups, ParamGroup(names=slow, lr=rate / 100)] if slow else groups

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, convolve shortly, then gate, convolve and gate."""
        length, before = x_BTD.shape[1], None if state is None else state.inputs_BKC
        valid_BT, lengths_B = layout.valid_BT(length), layout.lengths_B
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        into_BTC = self.into(x_BTD)
        streams: tuple[History, ...] = ()
        with torch.autocast(x_BTD.device.type, enabled=False):
            weight, bias = self.conv_weight.to(into_BTC.dtype), self.conv_bias.to(into_BTC.dtype)
            short_BTC, inputs_BKC = short_conv(into_BTC, weight, bias, before, None, lengths_B)
            pre_BTD, post_BTD, v_BTD = short_BTC.split(self.width, 2)
            if state is not None:
                y_BTD, streams = self._onward((v_BTD, pre_BTD, post_BTD), x_BTD, state, lengths_B)
            elif self.transforms is not None:
                y_BTD = self._transformed(self.transforms, v_BTD.to(self.wide) * pre_BTD, x_BTD, post_BTD)
            else:
                y_BTD = self._convolved(v_BTD, pre_BTD, post_BTD, x_BTD)
        out_BTD = self.out(y_BTD.to(into_BTC.dtype))
        if state is None:
            return out_BTD, None
        after_B = layout.advance(state.length_B, length)
        return out_BTD, replace(state, inputs_BKC=inputs_BKC, streams=streams, length_B=after_B, trail=None)

    def flops(self, length: int) -> int:
        """Projections, the short convolution, the networks at every tap, the transforms of both kinds."""
        D, R = self.width, len(self.skip)
        macs = length * (self.into.weight.numel() + self.out.weight.numel() + self.conv_weight.numel())
        macs += length * sum(network.macs for network in (*self.past, *self.future))  # type: ignore[attr-defined]
        size = length if self.transforms is None else self.transforms.size(length)
        with torch.device("meta"):
            v, k = torch.empty(1, size, R * D), torch.empty(R * D, size)
        macs += long_conv.floor(v, k, k if self.future else None).macs
        if self.transforms is not None:
            macs += self.transforms.macs(length, R * D)
        return 2 * macs

    def state_bytes(self, length: int) -> int:
        """An input a position, channel and long convolution, what the short one keeps, and the lengths."""
        kept = (self.config.conv - 1) * 3 * self.width + length * self.skip.numel()
        return kept * self.wide.itemsize + (1 + len(self.skip)) * torch.long.itemsize

    def _convolved(self, v_BTD: Tensor, pre_BTD: Tensor, post_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        """From nothing, by Fourier transforms."""
        length = x_BTD.shape[1]
        k_RDT = self.kernels(length)
        back = [network(length) for network in self.future] or [None] * len(k_RDT)
        y_BTD = gated_long_conv(v_BTD, k_RDT[0], back[0], self.skip[0], pre_BTD, post_BTD)
        return y_BTD if len(k_RDT) == 1 else y_BTD + long_conv(x_BTD, k_RDT[1], back[1], self.skip[1])

    def _transformed(self, transforms: Triangular, u_BTD: Tensor, x_BTD: Tensor, post_BTD: Tensor) -> Tensor:
        """From nothing, within learned transforms; both convolutions side by side."""
        length, k_RDT = x_BTD.shape[1], self.kernels(x_BTD.shape[1])
        inputs = [u_BTD, x_BTD.to(u_BTD.dtype)][: len(k_RDT)]
        k_XN = transforms.first(k_RDT.flatten(0, 1).T[None])[0].T
        y_BNX = long_conv(transforms.first(torch.cat(inputs, 2)), k_XN)
        y_BTX = transforms.second_inverse(y_BNX)[:, :length]
        sums = [y + skip_D * u for y, skip_D, u in zip(y_BTX.split(self.width, 2), self.skip, inputs, strict=True)]
        return sums[0] * post_BTD if len(sums) == 1 else sums[0] * post_BTD + sums[1]

    def _onward(
        self, gated: tuple[Tensor, Tensor, Tensor], x_BTD: Tensor, state: Any, lengths_B: Tensor | None
    ) -> tuple[Tensor, tuple[History, ...]]:
        """From a state: sums with all earlier inputs."""
        v_BTD, pre_BTD, post_BTD = gated
        length, sums, streams = x_BTD.shape[1], [], []
        inputs = [v_BTD.to(self.wide) * pre_BTD, x_BTD.to(self.wide)]
        for stream, taps, u_BTD, skip_D in zip(
            state.streams, self._taps(state, length), inputs, self.skip, strict=False
        ):
            y_BTD, stream = stream.room(length).convolve(u_BTD, taps, lengths_B)
            sums.append(y_BTD + skip_D * u_BTD)
            streams.append(stream)
        y_BTD = sums[0] * post_BTD
        return y_BTD if len(sums) == 1 else y_BTD + sums[1], tuple(streams)

    def _taps(self, state: Any, length: int) -> tuple[Taps, ...]:
        def make(length: int) -> tuple[Taps, ...]:
            return tuple(Taps(k_DL) for k_DL in self.kernels(length))

        first = state.streams[0]
        if is_plain():
            return make(first.filled + length)
        return state.memo.at(first.room(length).line_BLD.shape[1], self.past.parameters(), make)


def _refuse(options: MonarchMixer.Config) -> None:
    """Options that mean nothing."""
    if options.form not in ("fft", "monarch"):
        raise ConfigError(f"monarch_mixer: form is 'fft' or 'monarch', not {options.form!r}")
    if options.conv < 1:
        raise ConfigError(f"monarch_mixer: conv must be at least 1, not {options.conv}")
    if options.form == "monarch" and not options.causal:
        raise ConfigError("monarch_mixer: form monarch is triangular in time and cannot have causal False")
