"""S4D: one diagonal state-space model a channel, run as a convolution or as a recurrence.

    y = k * u + s u,    k_l = 2 Re sum_n C_n b_n a_n^l        out = GLU(W GELU(y))

a and b discretise x' = A x + 1 u by zero-order hold or the bilinear rule, A starting from one of four spectra:

    lin   A_n = -1/2 + i pi n                 legs  the normal part of HiPPO-LegS
    inv   A_n = -1/2 + i (N / pi) (N / (2 n + 1) - 1)       real  A_n = -(n + 1)

Half of each conjugate pair is stored and the factor 2 belongs to the kernel. A second readout on the same modes gives
the kernel of lags -1, -2, ... where the mixer may look ahead.
Shapes: B batch, T time, D width, N state size (N / 2 modes), R readouts.
Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", 2022,
arXiv:2206.11893, sections 3 and 4; activation and output mixing: the layer of its section 5 (as in S4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers._base import Mixer
from seqloom.mixers.ssm._diagonal import DiagonalBank, Rule
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._transition import Spectrum


class S4D(Filter):
    """Diagonal state-space mixer; its state is N / 2 complex numbers a channel."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of S4D."""

        state: int = 64
        """State size N of each channel; its N / 2 complex modes stand for conjugate pairs. Even."""
        init: Spectrum = "legs"
        """Spectrum at the start: evenly spaced, inverse, of HiPPO-LegS, or real."""
        discretisation: Rule = "zoh"
        """Zero-order hold, or the bilinear (trapezoidal) rule."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of the initial step sizes, log-uniform: 1 / step is how many positions a channel remembers."""

    config: Config

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=8, init="lin", discretisation="bilinear", output="linear"),
            cls.Config(state=8, init="inv", discretisation="bilinear", activation="none"),
            cls.Config(state=8, init="real", activation="none", output="none"),
            cls.Config(state=8, init="lin", causal=False),
            cls.Config(state=8, causal=False, activation="none", output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.state < 2 or options.state % 2:
            raise ConfigError(f"state must be even and at least 2, not {options.state}: modes come in conjugate pairs")
        self.bank = DiagonalBank(
            width, options.state // 2, options.init, options.discretisation, options.steps, self.readouts
        )

    @property
    def timing(self) -> tuple[str, ...]:
        """Step sizes, decays and frequencies."""
        return tuple(f"bank.{name}" for name in self.bank.timing)

    def filters(self, length: int) -> Tensor:
        """The sums of the modes' powers."""
        return self.bank.kernels(length)

    def filter_macs(self, length: int) -> int:
        """Those sums' multiply-adds."""
        with torch.device("meta"):
            log_a = torch.empty(self.width, self.config.state // 2, dtype=torch.complex128)
            c = torch.empty(self.readouts, *log_a.shape, dtype=torch.complex64)
        return vandermonde.floor(log_a, c, length).macs

    def remembered(self) -> tuple[int, ...]:
        """The modes as pairs of real numbers."""
        return self.width, self.config.state // 2, 2

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """See ``Modes.resume``."""
        return self.bank.discrete().resume(u_BTD, h_BDX, lengths_B)
