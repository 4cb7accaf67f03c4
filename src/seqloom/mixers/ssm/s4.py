"""S4: one structured state-space model a channel, whose matrix is normal but for a low rank, as a long convolution.

    y = k * u + s u,    k_l = C A-bar^l B-bar        out = GLU(W GELU(y))

A-bar and B-bar are the bilinear discretisation of x' = A x + B u, where A = L - P P* with L diagonal. At the start
(A, B) is a memory of orthogonal polynomials in the eigenbasis of its normal part: ``legs`` of all of the past and
``fourier`` of a sliding window (rank 1), ``legt`` of a sliding window (rank 2). Half of each conjugate pair is stored,
those with negative imaginary part, Re L = -exp(.) < 0 whatever is learnt (at least 1e-4 at the start, where the normal
parts of legt and fourier do not decay), and everything complex is a pair of real numbers. Kernel and step: ``_dplr``.

What is stored as the readout is C, or, tied to a ``length``, C~ = C (1 - A-bar^length), as the authors' checkpoints
have it. C~ is lengthened by doubling at every call beyond its length, and C is solved for at every call with a state.
The authors' code clips Im B to 2. That depends on the phases that an eigenvector routine happens to choose and changes
the memory, so it is left out: C is drawn with random phases, which makes all choices equal.
A second readout on the same system gives the kernel of lags -1, -2, ... where the mixer may look ahead.
Shapes: B batch, T time, D width, N modes (half the state size), Q rank, R readouts, S systems (D, or ``copies``).
Source: Gu, Goel, Ré, "Efficiently modeling long sequences with structured state spaces", 2022, arXiv:2111.00396,
sections 3 and 4, appendices B to D.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.steady import derived
from seqloom.kernels.cauchy import cauchy
from seqloom.mixers._base import Mixer
from seqloom.mixers.ssm._dplr import Discrete, System, circle, products, resume
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._modes import log_uniform
from seqloom.mixers.ssm._transition import LowRank, normal_low_rank

LEAST_DECAY = 1e-4


class S4(Filter):
    """Structured state-space mixer; its state is N / 2 complex numbers a channel."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of S4."""

        state: int = 64
        """State size N of each channel; its N / 2 complex modes stand for conjugate pairs. Even."""
        memory: LowRank = "legs"
        """What the state remembers at the start: all of the past, or a sliding window in Legendre or Fourier terms."""
        copies: int = 0
        """Systems (A, B) that the channels share in turn; 0 = one a channel. Readouts and steps are always its own."""
        store: Literal["c", "ctilde"] = "c"
        """The readout C, or C~ = C (1 - A-bar^length)."""
        length: int = 1024
        """What C~ is tied to."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of the initial step sizes, log-uniform: 1 / step is how many positions a channel remembers."""

    config: Config

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=8, memory="legt", output="linear"),
            cls.Config(state=8, memory="fourier", activation="none", output="none", copies=3),
            cls.Config(state=8, store="ctilde", length=16, activation="none"),
            cls.Config(state=8, memory="legt", store="ctilde", length=11, copies=1),
            cls.Config(state=8, causal=False),
            cls.Config(state=8, causal=False, store="ctilde", length=7, activation="none", output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.state < 2 or options.state % 2:
            raise ConfigError(f"state must be even and at least 2, not {options.state}: modes come in conjugate pairs")
        if options.copies < 0 or options.length < 1:
            raise ConfigError(
                f"copies must be at least 0 and length at least 1, not {options.copies} and {options.length}"
            )
        systems, start = options.copies or width, normal_low_rank(options.memory, options.state)
        decay_N = (-start.eigenvalue_H.real).clamp_min(LEAST_DECAY)
        self.step_log = nn.Parameter(log_uniform((width,), options.steps))
        self.decay_log = nn.Parameter(decay_N.log().float().repeat(systems, 1))
        self.frequency = nn.Parameter(start.eigenvalue_H.imag.float().repeat(systems, 1))
        self.low_rank = nn.Parameter(_pairs(start.low_rank_RH).float()[:, None].repeat(1, systems, 1, 1))
        self.input = nn.Parameter(_pairs(start.input_H).float().repeat(systems, 1, 1))
        self.readout = nn.Parameter(torch.randn(self.readouts, width, options.state // 2, 2) * math.sqrt(0.5))
        if options.store == "ctilde":
            with torch.no_grad():
                self.readout.copy_(_pairs(self.system().tied(options.length).readout_RDN))

    @property
    def timing(self) -> tuple[str, ...]:
        """All but the readout."""
        return ("step_log", "decay_log", "frequency", "low_rank", "input")

    def system(self) -> System:
        """The parameters' values."""
        eigenvalue_DN = torch.complex(-self.decay_log.double().exp(), self.frequency.double())
        P_QDN, B_DN, C_RDN = (torch.view_as_complex(x.double()) for x in (self.low_rank, self.input, self.readout))
        if self.config.copies:
            at_D = torch.arange(self.width, device=self.skip.device) % self.config.copies
            eigenvalue_DN, P_QDN, B_DN = eigenvalue_DN[at_D], P_QDN[:, at_D], B_DN[at_D]
        return System(self.step_log.double().exp(), eigenvalue_DN, P_QDN, B_DN, C_RDN)

    def stored(self, store: Literal["c", "ctilde"], length: int = 1024) -> "S4":
        """The same mixer with its readout stored the other way."""
        free = self.system() if self.config.store == "c" else self.system().untied(self.config.length)
        made = S4(self.width, replace(self.config, store=store, length=length)).to(self.skip)
        made.load_state_dict(self.state_dict())
        with torch.no_grad():
            made.readout.copy_(_pairs((free if store == "c" else free.tied(length)).readout_RDN))
        return made

    def filters(self, length: int) -> Tensor:
        """The inverse transform of the generating function."""
        system, tied = self.system(), self.config.length
        if self.config.store == "c":
            return system.kernels(length, self.dtype)
        if tied < length:
            system, tied = system.lengthened(tied, length)
        return system.tied_kernels(tied, self.dtype)[..., :length].contiguous()

    def filter_macs(self, length: int) -> int:
        """The Cauchy sums, the transform, and the products that lengthen C~."""
        options, rank = self.config, len(self.low_rank)
        macs, n = 0, circle(length, self.dtype)[0]
        points = n // 2 + 1
        if options.store == "ctilde":
            n = options.length
            products_, readings = (products(n) - 1, 0) if n < length else (0, 0)
            while n < length:
                n, products_, readings = 2 * n, products_ + 1, readings + 1
            points = (n + 1) // 2
            macs = self.width * options.state**2 * (products_ * options.state + readings * self.readouts)
        with torch.device("meta"):
            z, w = torch.empty(points, dtype=torch.complex128), torch.empty(self.width, options.state // 2)
            rows = torch.empty((self.readouts + rank) * (1 + rank), *w.shape, dtype=torch.complex128)
        transform = math.ceil(1.25 * self.readouts * self.width * n * math.log2(n))
        return macs + cauchy.floor(z, w, rows).macs + transform

    def remembered(self) -> tuple[int, ...]:
        """The modes as pairs of real numbers."""
        return self.width, self.config.state // 2, 2

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """By steps of O(N), or by dense blocks where there are many columns."""
        return resume(self.discrete(), u_BTD, h_BDX, lengths_B, self.kind)

    @derived
    def discrete(self) -> Discrete:
        """One step."""
        system = self.system() if self.config.store == "c" else self.system().untied(self.config.length)
        return system.discrete()


def _pairs(x: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones, for a parameter."""
    return torch.view_as_real(x.resolve_conj()).contiguous()
