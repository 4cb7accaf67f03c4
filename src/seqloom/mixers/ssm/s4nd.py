"""S4ND: one diagonal state-space kernel an axis, and their product as the kernel of an image or a volume.

    y = K * u + s u,    K_{l1 l2 l3} = sum_r k1_{r, l1} k2_{r, l2} k3_{r, l3}        out = GLU(W GELU(y))

    k_{r, l} = 2 Re sum_n C_{r, n} b_n a_n^{l}  for l >= 0, the same with a second readout for l < 0,
    a_n = exp(p dt A_n),  b_n = (a_n - 1) / A_n,  C_n = 0 where max(p, 1) dt |Im A_n| / 2 pi >= limit / 2

The cells of a grid lie along time, the last axis fastest. p is the rate of an axis: a grid of twice the cells over the
same extent has rate 1/2, and the same weights are the same continuous kernel on it. The zero-order hold alone is
offered: it is what keeps a mode's frequency p dt Im A, which the band limit compares with. The limit is taken at the
coarser of the weights' grid and this one, so that a finer grid keeps the modes that were learnt and no others.

Rows that end inside the grid are completed by zeros, which changes no cell before the end: padded, packed and single
rows give the same. A grid has no state to go on from; a single causal axis is S4D and has one.
Shapes: B batch, T time, X the axes of the grid, D width, N state size (N / 2 modes), R rank (readouts: one a term and
direction), W taps of an axis.
Source: Nguyen, Goel, Gu, Downs, Shah, Dao, Baccus, Ré, "S4ND: modeling images and videos as multidimensional signals
using state spaces", 2022, arXiv:2210.06583, sections 3 and 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.kernels.long_conv_nd import long_conv_nd
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.ssm._diagonal import DiagonalBank
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._modes import Modes, expm1
from seqloom.mixers.ssm._output import Output
from seqloom.mixers.ssm._transition import Spectrum

LINE_STEPS, GRID_STEPS = (1e-3, 1e-1), (1e-2, 1.0)
"""Initial step sizes along a single axis, as in S4D, and on a grid, whose axes are tens of cells and not thousands."""


class S4ND(Filter):
    """State-space mixer of images and volumes; along a single axis it is S4D."""

    same_as = "s4d"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of S4ND."""

        axes: tuple[int, ...] = (-1,)
        """Sizes of one to three axes, the slowest first; the first one may be -1 = as many lines as a row fills."""
        causal: bool | None = None  # type: ignore[bad-override]  (frozen: nobody writes a wider value through the base)
        """Read the past of every axis alone (on a grid what lies above and to the left); None: along a single axis."""
        rank: int = 1
        """Products of axis kernels that are summed."""
        state: int = 64
        """State size N of each channel and axis; its N / 2 complex modes stand for conjugate pairs. Even."""
        init: Spectrum = "legs"
        """Spectrum at the start: evenly spaced, inverse, of HiPPO-LegS, or real."""
        steps: tuple[float, float] | None = None
        """Range of the initial step sizes, log-uniform; None = 1e-3 to 1e-1 along one axis, 1e-2 to 1 on a grid."""
        bandlimit: float | None = None
        """Drop modes of at least this share of the highest frequency that a grid can carry; None = keep all."""
        rate: tuple[float, ...] = ()
        """Distance of neighbouring cells of each axis, in those of the grid that was trained on; () = 1 everywhere."""
        opening: int = 0
        """Columns before the grid (1 where a mark opens each sequence): they pass with the skip alone."""

        def resampled(self, axes: tuple[int, ...]) -> Self:
            """Options for the same picture on a grid of other sizes: the parameters fit as they are."""
            if len(axes) != len(self.axes) or any(size < 1 for size in (*axes, *self.axes)):
                raise ConfigError(
                    f"cannot go from axes {self.axes} to {axes}: where a size is -1, set the rate yourself"
                )
            rates = self.rate or (1.0,) * len(axes)
            scaled = tuple(p * old / new for p, old, new in zip(rates, self.axes, axes, strict=True))
            return replace(self, axes=axes, rate=scaled)

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Along a single axis those of S4D; a grid has no state, and is not invariant where a line ends."""
        causal, single = _is_causal(config), len(config.axes) == 1
        if causal and single:
            linear = Output.linear(config.activation, config.output)
            return Traits(causal="fft", step="constant", rollback="recorded", sequence_comm="state", lti=linear)
        open_ended = not config.axes or config.axes[0] < 0
        return Traits(
            causal="fft" if causal else "no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="no" if causal else "native",
            length_bound=None if open_ended else config.opening + math.prod(config.axes),
            lti=single and Output.linear(config.activation, config.output),
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=8, init="lin", rate=(0.5,), bandlimit=0.9, activation="none", output="linear"),
            cls.Config(state=8, causal=False, activation="none", output="none"),
            cls.Config(state=8, axes=(-1, 4)),
            cls.Config(state=8, axes=(12, 12), rank=3, init="lin", bandlimit=0.8, rate=(0.5, 2.0), opening=1),
            cls.Config(state=8, axes=(-1, 3, 4), rank=2, init="inv", output="linear"),
            cls.Config(state=8, axes=(-1, 5), causal=True, activation="none", output="none"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        options = config or self.Config()
        _check(options)
        super().__init__(width, options)
        steps = options.steps or (LINE_STEPS if len(options.axes) == 1 else GRID_STEPS)
        made = (width, options.state // 2, options.init, "zoh", steps, self.readouts)
        self.banks = nn.ModuleList(DiagonalBank(*made) for _ in options.axes)
        if len(options.axes) > 1:  # terms, and both sides of every axis, add up: start as large as one product of pasts
            sides = self.readouts // options.rank
            with torch.no_grad():
                for axis in range(len(options.axes)):
                    self._bank(axis).readout.mul_((sides * options.rank ** (1 / len(options.axes))) ** -0.5)

    @property
    def readouts(self) -> int:
        """Kernels of a channel along one axis: one a term, and as many for what follows."""
        return self.config.rank * (1 if _is_causal(self.config) else 2)

    @property
    def timing(self) -> tuple[str, ...]:
        """Step sizes, decays and frequencies of every axis."""
        return tuple(f"banks.{axis}.{name}" for axis in range(len(self.banks)) for name in DiagonalBank.timing)

    def resample(self, axes: tuple[int, ...]) -> "S4ND":
        """This mixer on a grid of other sizes over the same extent; every parameter is shared with it."""
        with torch.random.fork_rng(devices=[]):  # its own start is thrown away, and should move nobody's numbers
            twin = S4ND(self.width, self.config.resampled(axes))
        twin.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return twin.train(self.training)

    def sizes(self, length: int) -> tuple[int, ...]:
        """The grid that a row of so many columns fills, its last line perhaps in part."""
        rest = self.config.axes[1:]
        return -(-max(length - self.config.opening, 0) // math.prod(rest)), *rest

    def modes(self, axis: int) -> Modes:
        """The modes of an axis at its rate, without those beyond the band limit."""
        log_a_DN, a_DN, c_RDN, kind = self._bank(axis).discrete()
        rate, limit = self.config.rate[axis] if self.config.rate else 1.0, self.config.bandlimit
        if limit is not None:
            turns_DN = max(rate, 1.0) / (2 * math.pi) * log_a_DN.imag.abs()
            c_RDN = c_RDN * (turns_DN < limit / 2)
        if rate == 1.0:
            return Modes(log_a_DN, a_DN, c_RDN, kind)
        less_DN = expm1(rate * log_a_DN)
        return Modes(rate * log_a_DN, less_DN + 1, c_RDN * (less_DN / expm1(log_a_DN)), kind)

    def taps(self, sizes: Sequence[int]) -> tuple[list[Tensor], list[int]]:
        """Kernels (R, D, W) of every axis of a grid, and how many of their taps lie on the future."""
        found, ahead = [], []
        for axis, size in enumerate(sizes):
            k_RDL, M = self.modes(axis).kernels(size), 0
            if not _is_causal(self.config):
                past_RDL, future_RDL = k_RDL.split(self.config.rank)
                M = max(size - 1, 0)
                k_RDL = torch.cat([future_RDL[..., :M].flip(-1), past_RDL], -1)
            found.append(k_RDL)
            ahead.append(M)
        return found, ahead

    def filters(self, length: int) -> Tensor:
        """Kernels along a single axis; ``taps`` has those of a grid, which acts on no line of time."""
        if len(self.config.axes) > 1:
            raise ConfigError(f"a grid of axes {self.config.axes} has no kernel along time: ask taps(sizes)")
        return self.modes(0).kernels(length)

    def convolve(self, u_BTD: Tensor) -> Tensor:
        """Lay rows on the grid, convolve along all axes, and read the cells back."""
        opening_BOD, cells_BTD = u_BTD.tensor_split([self.config.opening], 1)
        sizes = self.sizes(u_BTD.shape[1])
        taps, ahead = self.taps(sizes)
        missing = math.prod(sizes) - cells_BTD.shape[1]
        u_BXD = pad(cells_BTD, (0, 0, 0, missing)).unflatten(1, sizes)
        y_BXD = long_conv_nd(u_BXD, ahead, *taps, *[None] * (3 - len(taps)), self.skip)
        y_BTD = y_BXD.flatten(1, -2)[:, : cells_BTD.shape[1]]
        return torch.cat([(self.skip * opening_BOD).to(y_BTD.dtype), y_BTD], 1)

    def flops(self, length: int) -> int:
        """The axes' kernels, the convolution on the grid, and the product that mixes channels."""
        sizes = self.sizes(length)
        both = not _is_causal(self.config)
        with torch.device("meta"):
            u_BXD = torch.empty(1, *sizes, self.width)
            taps = [torch.empty(self.config.rank, self.width, size + both * max(size - 1, 0)) for size in sizes]
        ahead = [both * max(size - 1, 0) for size in sizes]
        macs = self.filter_macs(length) + long_conv_nd.floor(u_BXD, ahead, *taps).macs
        return 2 * (macs + length * self.after.macs)

    def filter_macs(self, length: int) -> int:
        """The sums of the modes' powers along every axis."""
        with torch.device("meta"):
            log_a = torch.empty(self.width, self.config.state // 2, dtype=torch.complex128)
            c = torch.empty(self.readouts, *log_a.shape, dtype=torch.complex64)
        return sum(vandermonde.floor(log_a, c, size).macs for size in self.sizes(length))

    def remembered(self) -> tuple[int, ...]:
        """The modes of a single axis as pairs of real numbers."""
        return self.width, self.config.state // 2, 2

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """See ``Modes.resume``."""
        return self.modes(0).resume(u_BTD, h_BDX, lengths_B)

    def _bank(self, axis: int) -> DiagonalBank:
        bank = self.banks[axis]
        assert isinstance(bank, DiagonalBank)
        return bank


def _is_causal(options: S4ND.Config) -> bool:
    return len(options.axes) == 1 if options.causal is None else options.causal


def _check(options: S4ND.Config) -> None:
    """Raise where the options do not fit each other."""
    axes, single = options.axes, len(options.axes) == 1
    if not 1 <= len(axes) <= 3 or any(size < 1 for size in axes[1:]) or (axes[0] < 1 and axes[0] != -1):
        raise ConfigError(
            f"axes are one to three positive sizes, not {axes}; the first alone may be -1, since the place of a cell "
            "would otherwise hang on the padding behind its row"
        )
    if single and _is_causal(options) and axes[0] != -1:
        raise ConfigError(f"a single causal axis goes on without end: its size is -1, not {axes[0]}")
    if options.rank < 1 or (single and options.rank > 1):
        raise ConfigError(f"rank must be at least 1, and 1 along a single axis, not {options.rank}")
    if options.state < 2 or options.state % 2:
        raise ConfigError(f"state must be even and at least 2, not {options.state}: modes come in conjugate pairs")
    if options.rate and (len(options.rate) != len(axes) or min(options.rate) <= 0):
        raise ConfigError(f"rate has one positive number for each of {len(axes)} axes, not {options.rate}")
    if options.bandlimit is not None and options.bandlimit <= 0:
        raise ConfigError(f"bandlimit must be positive or None, not {options.bandlimit}")
    if options.opening < 0 or (single and options.opening):
        raise ConfigError(
            f"opening counts the columns before a grid, and a single axis has none, not {options.opening}"
        )
