"""SGConv: a long kernel put together from short pieces, each twice as wide and weaker than the one before.

    k = [m^(S-1) w_0, m^(S-2) up(w_1), m^(S-3) up(w_2), ..., up(w_(S-1))] / Z        y = k * u + s u
    out = GLU(W GELU(y) + b)

Every piece w_i has d numbers and is stretched by linear interpolation to d 2^max(i - 1, 0) taps, so that S = 1 +
ceil(log2(L / d)) pieces reach L positions with d S numbers a channel, and weights fall by m at every doubling of the
distance. Z is the norm of the kernel as it begins: a constant, made at construction and kept with the parameters. Made
anew at every call it would take away the scale that is learned.

The kernel is zero beyond its last tap. It does not depend on the length of a row. There is no constant state: a step
needs every earlier input, at O(log^2 t) a channel (relaxed convolution).

Shapes: B batch, T time, D width, R kernels a channel (2 where the second one reads the future), S pieces, d their
numbers.
Source: Li, Cai, Zhang, Chen, Dey, "What makes convolutional models great on long sequence modeling?", 2022,
arXiv:2210.09298, section 3.2; Z, the first two pieces of one length and the other ``join``: the authors' code.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.long_conv.relaxed import Taps
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.conv._history import History, Memo, is_plain
from seqloom.mixers.ssm._filter import Filter


class SGConv(Filter):
    """Multi-scale long convolution; its state is every input."""

    @dataclass(frozen=True, kw_only=True)
    class State(History):  # type: ignore[bad-override]  (every input in place of what channels remember)
        """The inputs, and kernels as long as the parameters stay."""

        memo: Memo = field(default_factory=Memo, compare=False)

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of SGConv."""

        length: int = 1024
        """Positions L that the kernel reaches at least; what lies further back is not seen."""
        piece: int = 64
        """Numbers d of each piece."""
        decay: tuple[float, float] = (2.0, 2.0)
        """The factor m between one piece and the next, spread over the channels from the first to the second."""
        join: Literal["cat", "sum"] = "cat"
        """Pieces one behind the other, or all from lag 0 on and added."""
        start: Literal["normal", "cosine"] = "normal"
        """How pieces begin: normal numbers, or a cosine of another frequency in every channel."""
        widen: int = 0
        """Doublings of every piece: fewer parameters and a smoother kernel."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Those of a filter that keeps every input and can forget any number of them."""
        known = super().traits(config)
        return known if not config.causal else replace(known, step="history", rollback="free")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(length=40, piece=4, decay=(1.0, 3.0), activation="none", output="none"),
            cls.Config(length=40, piece=4, join="sum", start="cosine", output="linear"),
            cls.Config(length=9, piece=2, widen=1, causal=False),
            cls.Config(length=5, piece=8, causal=False, activation="none", output="none"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        self._refuse(self.config)
        options, R = self.config, self.readouts
        self.pieces = nn.Parameter(torch.randn(self.scales, R, width, options.piece))
        if options.start == "cosine":
            turn_d = torch.linspace(0, 2 * math.pi, options.piece)
            order_SRD = torch.stack([torch.randperm(width) for _ in range(self.scales * R)]).view(-1, R, width)
            self.pieces.data = torch.cos(order_SRD[..., None] * turn_d)
        low, high = options.decay
        self.register_buffer("factor", torch.linspace(low, high, width))
        with torch.no_grad():
            self.register_buffer("norm", self._joined().norm(dim=-1, keepdim=True))

    @property
    def scales(self) -> int:
        """Pieces S of a kernel."""
        return max(1 + math.ceil(math.log2(self.config.length / self.config.piece)) - self.config.widen, 1)

    @property
    def timing(self) -> tuple[str, ...]:
        """The pieces: the kernel itself."""
        return ("pieces",)

    def filters(self, length: int) -> Tensor:
        """The pieces joined, divided by the first norm, cut or filled with zeros."""
        k_RDL = self._joined(length) / self.norm.to(self.dtype)
        return pad(k_RDL, (0, length - k_RDL.shape[-1])).contiguous()

    def filter_macs(self, length: int) -> int:
        """No products of matrices: pieces are stretched and scaled."""
        return 0

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """An empty line of ``capacity`` slots; beyond them it grows by doubling."""
        if self.can.step == "none":
            return super().initial_state(batch, capacity=capacity)
        line_BLD = self.skip.new_zeros(batch, capacity or 0, self.width, dtype=self.dtype)
        return self.State(line_BLD=line_BLD, length_B=self.no_length(batch))

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Convolve; with a state, with all earlier inputs."""
        if state is None:
            return super().mix(x_BTD, state, layout, context)
        length = x_BTD.shape[1]
        valid_BT = layout.valid_BT(length)
        u_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        with torch.autocast(x_BTD.device.type, enabled=False):
            u_BTD, state = u_BTD.to(self.dtype), state.room(length)
            y_BTD, state = state.convolve(u_BTD, self._taps(state, length), layout.lengths_B)
            y_BTD = y_BTD + self.skip * u_BTD
        return self.after(y_BTD.to(x_BTD.dtype)), state

    def state_bytes(self, length: int) -> int:
        """An input a position and channel, and the length."""
        return length * self.width * self.dtype.itemsize + torch.long.itemsize

    def _joined(self, length: int | None = None) -> Tensor:
        """The kernels before they are divided (R, D, taps); pieces that begin beyond a length are not made."""
        options, S, parts, taps = self.config, self.scales, [], 0
        pieces_SRDd, factor_D1 = self.pieces.to(self.dtype), self.factor.to(self.dtype)[:, None]
        for i, w_RDd in enumerate(pieces_SRDd):
            if options.join == "cat" and parts and length is not None and taps >= length:
                break
            doublings = options.widen + (i if options.join == "sum" else max(i - 1, 0))
            part_RDl = interpolate(w_RDd, size=options.piece << doublings, mode="linear")
            parts.append(part_RDl * factor_D1 ** (S - 1 - i))
            taps += part_RDl.shape[-1]
        if options.join == "cat":
            return torch.cat(parts, -1)
        taps = parts[-1].shape[-1]
        return torch.stack([pad(part_RDl, (0, taps - part_RDl.shape[-1])) for part_RDl in parts]).sum(0)

    def _taps(self, state: Any, length: int) -> Taps:
        def make(length: int) -> tuple[Taps, ...]:
            return (Taps(self.filters(length)[0]),)

        if is_plain():
            return make(state.filled + length)[0]
        return state.memo.at(state.line_BLD.shape[1], (self.pieces, self.norm, self.factor), make)[0]

    def _refuse(self, options: Config) -> None:
        """Options that mean nothing."""
        if options.length < 1 or options.piece < 1 or options.widen < 0:
            sizes = f"{options.length}, {options.piece} and {options.widen}"
            raise ConfigError(f"sgconv: length and piece must be at least 1 and widen 0, not {sizes}")
        if min(options.decay) <= 0:
            raise ConfigError(f"sgconv: decay must be positive, not {options.decay}")
        if options.join not in ("cat", "sum") or options.start not in ("normal", "cosine"):
            raise ConfigError(
                f"sgconv: join is 'cat' or 'sum' and start 'normal' or 'cosine', "
                f"not {options.join!r} and {options.start!r}"
            )
