"""DSS: a diagonal state-space model a channel, all of one matrix, whose readout alone differs.

    y = k * u + s u        out = GLU(W' GELU(y))

    exp      k_l = Re sum_n W_n (e^{z_n} - 1) / L_n  e^{z_n l}          Re L = -exp(.)
    softmax  k_l = Re sum_n W_n / L_n  softmax_{l < T}(z_n l)           L of any sign
    z_n = dt L_n,    or dt Re L_n + i dt' Im L_n

L (N) is shared, W (D, N) and dt (D) belong to the channels. At the start L are the N eigenvalues with positive
imaginary part of (A - A^T) / 2, A the transition of HiPPO-LegS of size 2 N, minus 1/2. Here N modes are N complex
numbers without conjugates and **without the factor 2** of S4 and S4D: with W = 2 C the form exp is S4D's.

A softmax is normalised over the length of its row, so that its kernel is another one at every length: there is no
state to go on from, no chunk, no step, and outputs depend on how many inputs follow, which is why its traits say that
it is not causal. Padded and packed rows have kernels of their own length. The form exp has all of it.
Shapes: B batch, T time, D width, N modes, R readouts (2 where the second one reads the future), X channels of all rows.
Source: Gupta, Gu, Berant, "Diagonal state spaces are as effective as structured state spaces", 2022, arXiv:2203.14343,
section 3 (proposition 1) and appendix A; separate step sizes: the authors' code.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.ssm._dss import Form, SharedBank
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._transition import eigenvalues


class DSS(Filter):
    """Diagonal state-space mixer of one matrix for all channels; its state is N complex numbers a channel."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of DSS."""

        state: int = 64
        """Modes N, each of which is a complex number in every channel: twice S4D's at the same figure."""
        form: Form = "exp"
        """Kernel: exponentials that decay, or softmaxes over the row, which can also look at its far end."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of the initial step sizes, log-uniform: 1 / step is how many positions a channel remembers."""
        phase_steps: bool = False
        """Learn a step size for the imaginary parts beside that for the real ones."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Those of a filter; a softmax knows its row's length, hence how many inputs follow."""
        known = super().traits(config)
        if config.form == "exp":
            return known
        return replace(known, causal="no", step="none", rollback="none", sequence_comm="forbidden")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=8, phase_steps=True, activation="none", output="none"),
            cls.Config(state=8, causal=False, output="linear"),
            cls.Config(state=8, form="softmax"),
            cls.Config(state=8, form="softmax", phase_steps=True, causal=False, activation="none", output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.state < 1:
            raise ConfigError(f"state must be at least 1, not {options.state}")
        if options.form not in ("exp", "softmax"):
            raise ConfigError(f"form is 'exp' or 'softmax', not {options.form!r}")
        start_N = eigenvalues("legs", options.state)
        self.bank = SharedBank(start_N, width, options.form, options.steps, options.phase_steps, self.readouts)

    @property
    def timing(self) -> tuple[str, ...]:
        """L, W and the step sizes."""
        return tuple(f"bank.{name}" for name in self.bank.timing)

    def filters(self, length: int) -> Tensor:
        """The sums of the modes' powers; softmaxes over this length."""
        return self.bank.kernels(length)

    def filter_macs(self, length: int) -> int:
        """Those sums' multiply-adds: those that fall and those that rise apart for a softmax."""
        with torch.device("meta"):
            log_a = torch.empty(self.width, self.config.state, dtype=torch.complex128)
            rows = (2, self.readouts) if self.config.form == "softmax" else (self.readouts,)
            c = torch.empty(*rows, *log_a.shape, dtype=torch.complex64)
        return vandermonde.floor(log_a, c, length).macs

    def rows(self, u_BTD: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Rows of different lengths have different softmaxes: each of their channels is one of the convolution."""
        if self.config.form == "exp" or lengths_B is None:
            return self.convolve(u_BTD)
        k_RXT = self.bank.kernels(u_BTD.shape[1], lengths_B).transpose(0, 1).flatten(1, 2)
        u_1TX = u_BTD.transpose(0, 1).flatten(1)[None]
        y_1TX = long_conv(u_1TX, k_RXT[0], None if self.config.causal else k_RXT[1], self.skip.repeat(len(u_BTD)))
        return y_1TX[0].unflatten(1, (-1, self.width)).transpose(0, 1)

    def remembered(self) -> tuple[int, ...]:
        """The modes as pairs of real numbers."""
        return self.width, self.config.state, 2

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """See ``Modes.resume``."""
        return self.bank.discrete().resume(u_BTD, h_BDX, lengths_B)
