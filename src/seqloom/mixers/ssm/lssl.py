"""LSSL: one dense state-space model a channel, run as a convolution, as a recurrence, or at another sampling rate.

    x_t = A-bar x_{t-1} + B-bar u_t        y_t = C x_t + s u_t        k_l = C A-bar^l B-bar        out = W GELU(y)

    A-bar = (I - a r dt A)^{-1} (I + (1 - a) r dt A)        B-bar = r dt (I - a r dt A)^{-1} B

dt is a channel's step, r the sampling rate relative to training: that the signal now comes every r-th time changes r
and nothing else. A is HiPPO's and frozen with dt (``none``: LSSL-fixed), or learned inside the inverses of tridiagonal
matrices (``_quasiseparable``), one for all channels (``shared``) or one each (``channel``); C and s are always learned,
and B where A is. M readouts of each state are M kernels a channel, mixed back by W.

Nothing is cached on the module: the published LSSL-fixed keeps its Krylov matrix, and keeps it when the rate changes.
Here a kernel is built for each call from its two levels, without that matrix (``kernels/krylov``), in float64 whatever
the autocast. That is for what A may become: at the start float32 is off by 1e-6 (legs) to 1e-5 (legt) of the largest
value at N = 64 to 256 and 16384 positions, since the bilinear rule makes a contraction of every A that dissipates.
Shapes: B batch, T time, D width, N state size, M readouts of a state, R kernels a readout (2 where the second one reads
the future).
Source: Gu, Johnson, Goel, Saab, Dao, Rudra, Ré, "Combining recurrent, convolutional, and continuous-time models with
linear state-space layers", 2021, arXiv:2110.13985, sections 3 to 5.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.steady import derived
from seqloom.kernels.krylov import krylov_carry, krylov_readout
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.tridiagonal import tridiagonal
from seqloom.mixers._base import Mixer
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._modes import SHORT, log_uniform
from seqloom.mixers.ssm._output import Map
from seqloom.mixers.ssm._quasiseparable import FIELDS, Discrete, Inverse, Structure, longest_step, structure


class LSSL(Filter):
    """Dense state-space mixer; its state is N numbers a channel."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of LSSL."""

        output: Map = "linear"
        """How channels are mixed after it: a linear map, a gated one, or not at all."""
        state: int = 32
        """State size N of each channel. The kernel costs N^3 log2 T a channel."""
        outputs: int = 1
        """Readouts M of each channel's state."""
        memory: Inverse = "legs"
        """What the state remembers at first: all of the past, older parts coarser, or a window of the last 1 / dt."""
        learn: Literal["none", "shared", "channel"] = "shared"
        """Freeze A and the steps, learn one A for all channels, or one for each."""
        alpha: float = 0.5
        """The rule a: 0 is Euler's, 1/2 the bilinear one, 1 the backward one."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of the initial step sizes, log-uniform: 1 / step is how many positions a channel remembers."""
        rate: float = 1.0
        """Distance of two positions in those of the signal that was trained on: 2 where every other one is left."""

        def resampled(self, rate: float) -> Self:
            """Options for the same signal at another distance of its positions: the parameters fit as they are."""
            return replace(self, rate=self.rate * rate)

    config: Config

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=5, learn="none", outputs=3, memory="legt"),
            cls.Config(state=6, learn="channel", outputs=2, output="glu", rate=2.0),
            cls.Config(state=6, learn="channel", memory="legt", alpha=1.0, activation="none", output="none"),
            cls.Config(state=4, alpha=0.0, steps=(1e-3, 1e-2), activation="none"),
            cls.Config(state=4, causal=False, outputs=2, activation="none"),
            cls.Config(state=4, causal=False, learn="none", output="glu"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        options = config or self.Config()
        if options.outputs < 1 or not 0 <= options.alpha <= 1 or not options.rate > 0:
            raise ConfigError(
                f"LSSL needs outputs >= 1, alpha in 0..1 and a positive rate, not {options.outputs}, {options.alpha} "
                f"and {options.rate}"
            )
        if options.steps[1] > (limit := longest_step(options.memory, options.state, options.alpha)):
            raise ConfigError(
                f"with alpha {options.alpha} and state {options.state} steps must stay below {limit:.3g}, not "
                f"{options.steps}: only alpha >= 1/2 is stable at every step"
            )
        super().__init__(width, options, options.outputs * width)
        made = structure(options.memory, options.state)
        step_log_D = log_uniform((width,), options.steps)
        if options.learn == "none":
            self.register_buffer("step_log", step_log_D)
        else:
            self.step_log = nn.Parameter(step_log_D)
            copies = width if options.learn == "channel" else 1
            for name, value in zip(FIELDS, made, strict=True):
                self.register_parameter(name, nn.Parameter(value.float().repeat(copies, 1)))
        self.readout = nn.Parameter(torch.randn(self.readouts, width, options.outputs, options.state))

    @property
    def timing(self) -> tuple[str, ...]:
        """Step sizes, A and B, where they are learned."""
        return () if self.config.learn == "none" else ("step_log", *FIELDS)

    def resample(self, rate: float) -> "LSSL":
        """This mixer for positions ``rate`` times as far apart; every parameter is shared with it."""
        with torch.device("meta"):
            twin = LSSL(self.width, self.config.resampled(rate))
        twin.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return twin.train(self.training)

    def structure(self) -> Structure:
        """A and B, float64."""
        if self.config.learn != "none":
            return Structure(*(getattr(self, name).double() for name in FIELDS))
        return Structure(*(x.to(self.skip.device) for x in structure(self.config.memory, self.config.state)))

    def discrete(self) -> Discrete:
        """The systems of all channels at their steps, float64."""
        return Discrete(self.structure(), self.config.rate * self.step_log.double().exp(), self.config.alpha)

    def filters(self, length: int) -> Tensor:
        """C A-bar^l B-bar in two levels."""
        system = self.discrete()
        c_DMN = self.readout.double().transpose(0, 1).flatten(1, 2)
        k_DM1L = krylov_readout(system.dense(), system.input()[..., None], c_DMN, length)
        k_DRML = k_DM1L.view(self.width, self.readouts, self.config.outputs, length)
        return k_DRML.transpose(0, 1).flatten(1, 2).to(self.dtype)

    def filter_macs(self, length: int) -> int:
        """Two solves and the two levels."""
        N, M = self.config.state, self.readouts * self.config.outputs
        with torch.device("meta"):
            A_DNN, b_DN1, c_DMN, beside_DQ = (
                torch.empty(self.width, *sides, dtype=torch.float64) for sides in ((N, N), (N, 1), (M, N), (N - 1,))
            )
        solves = sum(tridiagonal.floor(beside_DQ, b_DN1[..., 0], beside_DQ, x).macs for x in (A_DNN, b_DN1))
        return solves + krylov_readout.floor(A_DNN, b_DN1, c_DMN, length).macs

    def remembered(self) -> tuple[int, ...]:
        """The state x."""
        return self.width, self.config.state

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """A few inputs one after the other, O(N) each; many by the convolution, the state's echo and its powers."""
        u_BTD, h_DNB = u_BTD.double(), h_BDX.double().permute(1, 2, 0)
        run = self._steps if u_BTD.shape[1] <= SHORT else self._chunk
        y_BTM, h_DNB = run(u_BTD, h_DNB, lengths_B)
        return y_BTM.to(self.dtype), h_DNB.permute(2, 0, 1).to(self.dtype)

    @derived
    def _step(self) -> tuple[Discrete, Tensor, Tensor]:
        """The systems, B-bar (D, N, 1) and C (D, M, N)."""
        system = self.discrete()
        return system, system.input()[..., None], self.readout[0].double()

    def _steps(self, u_BTD: Tensor, h_DNB: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        (system, B_DN1, C_DMN), outputs = self._step(), []
        for at, u_BD in enumerate(u_BTD.unbind(1)):
            new_DNB = system.advance(h_DNB) + B_DN1 * u_BD.T[:, None]
            outputs.append((C_DMN @ new_DNB).flatten(0, 1).T)
            h_DNB = new_DNB if lengths_B is None else torch.where(at < lengths_B, new_DNB, h_DNB)
        return torch.stack(outputs, 1), h_DNB

    def _chunk(self, u_BTD: Tensor, h_DNB: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """The state before the first input adds C A-bar^{t+1} h to the outputs."""
        system, C_DMN = self.discrete(), self.readout[0].double()
        A_DNN, b_DN = system.dense(), system.input()
        starts_DNS = torch.cat([b_DN[..., None], system.advance(h_DNB)], 2)
        k_DMST = krylov_readout(A_DNN, starts_DNS, C_DMN, u_BTD.shape[1])
        echo_BTM = k_DMST[:, :, 1:].permute(2, 3, 0, 1).flatten(2)
        y_BTM = long_conv(self.spread(u_BTD), k_DMST[:, :, 0].flatten(0, 1)) + echo_BTM
        return y_BTM, krylov_carry(A_DNN, b_DN, u_BTD, h_DNB, lengths_B)
