"""Exponential moving averages of each channel, several at a time and damped: the memory of Mega.

    p = sigmoid(d), q = 1 - p sigmoid(a)    h_t = q h_{t-1} + p b x_t    y_t = sum_n c_n h_{t,n} / sqrt(N) + w x_t

As a convolution k_l = sum_n c_n p_n b_n q_n^l / sqrt(N): a diagonal state-space model with real modes between 0 and 1.

Shapes: B batch, T time, D width, N averages a channel, R readouts (2 where the second one reads the future).
Source: Ma et al., "Mega: moving average equipped gated attention", 2022, arXiv:2209.10655, section 3.2 and appendix B.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.steady import derived
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers._base import Mixer
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._modes import Modes

SPREAD = 0.2
"""Standard deviation of the decays' and dampings' logits at the start."""


class EMA(Filter):
    """Damped moving averages; its state is N numbers a channel."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of the averages."""

        state: int = 16
        """Averages N of each channel."""

    config: Config

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=3, activation="none", output="none"),
            cls.Config(state=2, causal=False, output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        N = self.config.state
        if N < 1:
            raise ConfigError(f"ema: state must be at least 1, not {N}")
        shape = (self.readouts, width, N)
        self.decay = nn.Parameter(torch.randn(shape) * SPREAD)
        self.damping = nn.Parameter(torch.randn(shape) * SPREAD)
        signs_N = torch.ones(N)
        signs_N[1::2] = -1
        self.weight_in = nn.Parameter(signs_N + 0.02 * torch.randn(shape))
        self.weight_out = nn.Parameter(torch.randn(shape))

    @property
    def timing(self) -> tuple[str, ...]:
        """Decays and dampings."""
        return ("decay", "damping")

    @derived
    def modes(self) -> tuple[Modes, ...]:
        """The averages as modes, one set a direction."""
        p, damped = self.decay.double().sigmoid(), self.damping.double().sigmoid()
        c = p * self.weight_in.double() * self.weight_out.double() / self.config.state**0.5
        log_q, q = torch.log1p(-p * damped), 1 - p * damped
        log_q, q, c = (torch.complex(x, torch.zeros_like(x)) for x in (log_q, q, c))
        return tuple(Modes(log_q[r], q[r], c[r : r + 1], self.kind) for r in range(self.readouts))

    def filters(self, length: int) -> Tensor:
        """The sums of the averages' powers."""
        return torch.cat([each.kernels(length) for each in self.modes()])

    def filter_macs(self, length: int) -> int:
        """Those sums' multiply-adds."""
        with torch.device("meta"):
            log_a = torch.empty(self.width, self.config.state, dtype=torch.complex128)
            c = torch.empty(1, *log_a.shape, dtype=torch.complex64)
        return self.readouts * vandermonde.floor(log_a, c, length).macs

    def remembered(self) -> tuple[int, ...]:
        """The averages, with the imaginary part that they share with other modes and that stays zero."""
        return self.width, self.config.state, 2

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """See ``Modes.resume``."""
        return self.modes()[0].resume(u_BTD, h_BDX, lengths_B)
