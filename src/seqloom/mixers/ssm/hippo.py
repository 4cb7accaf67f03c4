"""HiPPO: a fixed memory that holds the best polynomial approximation of the past, read out linearly.

    c(t) = argmin || u(t - age) - sum_n c_n f_n(age) ||        y_t = W c(t) + s f_t        out = W' GELU(y)

    legs      c_t = (I - A / 2t)^{-1} ((I + A / 2t) c_{t-1} + B f_t / t)           all of the past, evenly
    legt      the last w positions      lmu      the same in Legendre's own scale
    lagt      a past that fades as exp(-age / w)      fourier  the last w positions as sines
    others than legs: c_t = A-bar c_{t-1} + B-bar f_t, the bilinear rule at steps of 1 / w

f is the input itself, one memory a channel, or a learned map of it. The memory has no parameters. legs has no time
scale either: t counts a row's own positions, and a signal of twice as many samples has the same coefficients. What a
state remembers can be looked at: ``reconstruct``. The paper's HiPPO-RNN feeds c back into a gated cell; here the layers
of a backbone do that, and no step depends on an earlier output.
Shapes: B batch, T time, D width, C memories, N coefficients, M readouts of a memory, P ages.
Source: Gu, Dao, Ermon, Rudra, Ré, "HiPPO: recurrent memory with optimal polynomial projections", 2020,
arXiv:2008.07669, sections 2 and 3; Voelker, Kajić, Eliasmith, "Legendre memory units", 2019 (lmu).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.core.steady import derived
from seqloom.kernels.krylov import krylov
from seqloom.kernels.linear_scan import linear_scan
from seqloom.kernels.long_conv import long_conv
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.ssm._modes import SHORT
from seqloom.mixers.ssm._output import Activation, Map, Output
from seqloom.mixers.ssm._projection import basis, follow, follow_one
from seqloom.mixers.ssm._transition import Memory, discretise, transition

TRIANGULAR = ("legs", "lagt")


class HiPPO(Mixer):
    """Polynomial memory; its state is N coefficients a channel."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """The coefficients after the last input."""

        c_BCN: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of HiPPO."""

        memory: Memory = "legs"
        """What is remembered: all of the past, a window (legt, lmu, fourier), or a fading past (lagt)."""
        state: int = 40
        """Coefficients N of each memory."""
        window: float = 64.0
        """Positions w of the window, or of the fading by a factor e; legs has none."""
        channels: int = 0
        """Memories, each of a learned map of the input; 0 = one of each channel of the input itself."""
        outputs: int = 1
        """Readouts M of each memory."""
        activation: Activation = "gelu"
        """What follows the readout."""
        output: Map = "linear"
        """How channels are mixed after it: a linear map, a gated one, or not at all."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Scans are causal exactly, convolutions to rounding; legs changes with time."""
        return Traits(
            causal="exact" if config.memory in TRIANGULAR else "fft",
            step="constant",
            rollback="recorded",
            sequence_comm="state",
            lti=config.memory != "legs" and Output.linear(config.activation, config.output),
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=5, memory="legt", window=20, channels=3, outputs=2),
            cls.Config(state=4, memory="lmu", window=8.5, activation="none", output="none"),
            cls.Config(state=6, memory="lagt", activation="none", outputs=2),
            cls.Config(state=6, memory="fourier", window=16, output="glu"),
            cls.Config(state=3, channels=5, output="glu"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if min(options.state, options.outputs) < 1 or options.channels < 0 or not options.window > 0:
            raise ConfigError(
                f"HiPPO needs state and outputs of at least 1, no negative channels and a positive window, not "
                f"{options.state}, {options.outputs}, {options.channels} and {options.window}"
            )
        C, M, N = options.channels or width, options.outputs, options.state
        self.input = nn.Linear(width, C, bias=False) if options.channels else None
        self.readout = nn.Parameter(torch.randn(C, M, N) * N**-0.5)
        self.skip = nn.Parameter(torch.randn(C * M))
        self.after = Output(C * M, width, options.activation, options.output)

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of memories and kernels."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros: nothing was ever seen."""
        C, _, N = self.readout.shape
        zeros_BCN = self.skip.new_zeros(batch, C, N, dtype=self.dtype)
        return self.State(c_BCN=zeros_BCN, length_B=self.no_length(batch))

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Follow the input by coefficients and read them out, or convolve with what that comes down to."""
        length = x_BTD.shape[1]
        f_BTC = x_BTD if self.input is None else self.input(x_BTD)
        c_BTCN = None
        with torch.autocast(x_BTD.device.type, enabled=False):
            valid_BT = layout.valid_BT(length)
            u_BTC = f_BTC.to(self.dtype)
            u_BTC = u_BTC if valid_BT is None else u_BTC.masked_fill(~valid_BT[..., None], 0)
            u_BTM = u_BTC.repeat_interleave(self.config.outputs, -1)
            if state is None and self.config.memory not in TRIANGULAR:
                y_BTM = long_conv(u_BTM, self.kernel(length), None, self.skip)
            else:
                start = self.initial_state(len(x_BTD)) if state is None else state
                c_BTCN = self.coefficients(u_BTC, start)
                read_BTM = torch.einsum("btcn,cmn->btcm", c_BTCN, self.readout.to(self.dtype)).flatten(2)
                y_BTM = read_BTM + self.skip * u_BTM
        out_BTD = self.after(y_BTM.to(x_BTD.dtype))
        if state is None or c_BTCN is None:
            return out_BTD, None
        last_BCN = _last(c_BTCN, state.c_BCN, layout.lengths_B)
        return out_BTD, replace(state, c_BCN=last_BCN, length_B=layout.advance(state.length_B, length), trail=None)

    def coefficients(self, u_BTC: Tensor, state: Any) -> Tensor:
        """Every c (B, T, C, N) of signals that go on from a state."""
        T = u_BTC.shape[1]
        if self.config.memory in TRIANGULAR:
            count_BT = (state.length_B[:, None] + torch.arange(1, T + 1, device=u_BTC.device)).double()
            step_BT = 1 / (count_BT if self.config.memory == "legs" else torch.full_like(count_BT, self.config.window))
            step_BT = step_BT.to(u_BTC.dtype)
            if T == 1:
                return follow_one(self.config.memory, step_BT[:, 0], u_BTC[:, 0], state.c_BCN)[:, None]
            return follow(self.config.memory, step_BT, u_BTC, state.c_BCN)
        A_NN, B_N = self.system()
        if T <= SHORT:
            return self._steps(A_NN.to(u_BTC.dtype), B_N.to(u_BTC.dtype), u_BTC, state.c_BCN)
        C, N = u_BTC.shape[2], len(B_N)
        X_NT = krylov(A_NN[None], B_N[None, :, None], T)[0, ..., 0]
        own_BTX = long_conv(u_BTC.repeat_interleave(N, -1), X_NT.to(u_BTC.dtype).repeat(C, 1))
        start_NX = A_NN @ state.c_BCN.flatten(0, 1).T.to(A_NN.dtype)
        echo_TXN = krylov(A_NN[None], start_NX[None], T)[0].permute(1, 2, 0)
        return own_BTX.unflatten(2, (C, N)) + echo_TXN.unflatten(1, (-1, C)).transpose(0, 1).to(u_BTC.dtype)

    @derived
    def system(self) -> tuple[Tensor, Tensor]:
        """A-bar (N, N) and B-bar (N) of a memory that does not change with time, float64."""
        options = self.config
        if options.memory == "legs":
            raise ConfigError("legs changes with time: it has no one transition, and no kernel")
        window = 1.0 if options.memory == "lagt" else options.window
        step = torch.tensor(1.0 / options.window if options.memory == "lagt" else 1.0, dtype=torch.float64)
        A_NN, B_N = discretise(*transition(options.memory, options.state, window), step)
        return A_NN.to(self.skip.device), B_N.to(self.skip.device)

    def kernel(self, length: int) -> Tensor:
        """Kernels (C M, length) of the readouts without the skip, for memories that do not change with time."""
        A_NN, B_N = self.system()
        X_NT = krylov(A_NN[None], B_N[None, :, None], length)[0, ..., 0]
        return (self.readout.double().flatten(0, 1) @ X_NT).to(self.dtype)

    @torch.no_grad()
    def reconstruct(self, state: Any, ages_P: Tensor) -> Tensor:
        """What the memories say the signals were (B, P, C), at ages in positions back from the end of the last one.

        An input fills one unit of time: the last one lies at ages 0 to 1, the one before it at 1 to 2.

        Raises:
            ConfigError: An age beyond what the memory sees.
        """
        legs = self.config.memory == "legs"
        window_B = state.length_B.double() if legs else torch.full_like(state.length_B, 1.0, dtype=torch.float64)
        window_B = window_B if legs else window_B * self.config.window
        share_BP = ages_P.double() / window_B[:, None]
        beyond = share_BP.max() > 1 and self.config.memory != "lagt"
        if share_BP.numel() and bool(beyond or share_BP.min() < 0):
            raise ConfigError(f"ages must lie within 0 and {float(window_B.min()):g}, what the memory sees")
        f_BPN = basis(self.config.memory, self.config.state, share_BP)
        return torch.einsum("bpn,bcn->bpc", f_BPN, state.c_BCN.double()).to(self.dtype)

    def flops(self, length: int) -> int:
        """The memory's scans and readout, or the kernel and its convolution; and the maps before and after."""
        C, M, N = self.readout.shape
        macs = length * (self.after.macs + (0 if self.input is None else self.input.weight.numel()))
        with torch.device("meta"):
            u_BTC, u_BTM = torch.empty(1, length, C), torch.empty(1, length, C * M)
            k_ML, A, b = torch.empty(C * M, length), torch.empty(1, N, N), torch.empty(1, N, 1)
            if self.config.memory in TRIANGULAR:
                one = C * N * N + -(-C * N * N // 2)
                scans = one if length == 1 else N * linear_scan.floor(u_BTC, u_BTC, u_BTC[:, :1]).macs
                return 2 * (macs + scans + length * C * M * N)
            kernel = krylov.floor(A, b, length).macs + C * M * N * length + _discretisation(N)
            return 2 * (macs + kernel + long_conv.floor(u_BTM, k_ML).macs)

    def state_bytes(self, length: int) -> int:
        """The coefficients, and the length."""
        C, _, N = self.readout.shape
        return C * N * self.dtype.itemsize + 8

    def _steps(self, A_NN: Tensor, B_N: Tensor, u_BTC: Tensor, c_BCN: Tensor) -> Tensor:
        found = []
        for u_BC in u_BTC.unbind(1):
            c_BCN = c_BCN @ A_NN.T + u_BC[..., None] * B_N
            found.append(c_BCN)
        return torch.stack(found, 1)


def _discretisation(N: int) -> int:
    """Multiply-adds of two solves with one matrix each."""
    return -(-(N**3) // 3) + N**3 + -(-(N**3) // 3) + N * N


def _last(c_BTCN: Tensor, before_BCN: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The coefficients at each row's last valid column; what was before where a row has none."""
    if lengths_B is None:
        return c_BTCN[:, -1].clone()
    rows_B = torch.arange(len(c_BTCN), device=c_BTCN.device)
    return torch.where((lengths_B > 0)[:, None, None], c_BTCN[rows_B, (lengths_B - 1).clamp_min(0)], before_BCN)
