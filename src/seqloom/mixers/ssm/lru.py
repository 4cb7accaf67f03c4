"""LRU: one diagonal complex recurrence for all channels together, stable by construction and normalised.

    h_t = a * h_{t-1} + g * (B x_t)    y_t = Re(C h_t) + s * x_t    out = GLU(W GELU(y) + b)
    a = exp(-exp(nu) + i exp(theta))   g = sqrt(1 - |a|^2) at the start, learned as log g

B (N, D) and C (D, N) are dense and complex, so that every mode hears every channel. At the start |a|^2 is uniform in
[r_min^2, r_max^2] and the phase in [0, max_phase]; g keeps E |h|^2 = 1 for white inputs however near 1 |a| is. All N
modes are stored and **no factor 2** belongs to the real part. Where the mixer may look ahead, a second recurrence runs
from the end to the start on the same inputs, with a readout of its own for lags -1, -2, ....

A whole sequence is run as the scan: 4 N T multiply-adds, one pass over the states. The alternatives cost more: as one
convolution D^2 kernels must be transformed, and mode by mode a convolution is O(N T log T), with its backward 11 times
the scan's time at (4, 2048, 64). Either way the bulk are the maps around it, 2 N D T multiply-adds each.

Shapes: B batch, T time, D width, N modes, R readouts (1, or 2 where the second one reads the future), 2 the real and
the imaginary part.
Source: Orvieto et al., "Resurrecting recurrent neural networks for long sequences", 2023, arXiv:2303.06349, sections
3.2 to 3.4 and appendix A.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.core.steady import derived
from seqloom.kernels.linear_scan import linear_scan
from seqloom.kernels.vandermonde import vandermonde
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.ssm._output import Activation, Map, Output

EDGE = 1e-7
"""How near 0 and 1 an initial |a|^2 may come: at either end log(-log |a|) is infinite."""


class LRU(Mixer):
    """Linear recurrent unit; its state is N complex numbers a row."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """The modes after the last input, as pairs of real numbers."""

        h_BN2: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the LRU."""

        state: int = 64
        """Complex modes N, shared by all channels."""
        r_min: float = 0.0
        """Smallest |a| at the start."""
        r_max: float = 1.0
        """Largest |a| at the start; a mode remembers about 1 / (1 - |a|) positions. Long tasks: 0.9 to 0.999."""
        max_phase: float = 2 * math.pi
        """Largest turn a position at the start; for long tasks a tenth of a half turn, so that slow modes stay slow."""
        normalise: bool = True
        """False leaves out g: modes near |a| = 1 then answer as loudly as they remember long."""
        causal: bool = True
        """False adds a recurrence from the end to the start with a readout of its own; there is no step then."""
        activation: Activation = "gelu"
        """What follows the recurrence."""
        output: Map = "glu"
        """How channels are mixed after it: a gated linear map, a linear map, or not at all."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of decays, phases and normalisation, which also get no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """A recurrence with a constant state; linear only without what follows it."""
        lti = Output.linear(config.activation, config.output)
        if config.causal:
            return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state", lti=lti)
        return Traits(
            causal="no", step="none", rollback="none", sequence_comm="forbidden", bidirectional="native", lti=lti
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=5, r_min=0.9, r_max=0.999, max_phase=math.pi / 10, output="linear"),
            cls.Config(state=8, r_max=0.9, normalise=False, activation="none", output="none"),
            cls.Config(state=8, causal=False),
            cls.Config(state=8, causal=False, activation="none", output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options, N = self.config, self.config.state
        if N < 1:
            raise ConfigError(f"state must be at least 1, not {N}")
        if not 0 <= options.r_min <= options.r_max <= 1:
            raise ConfigError(f"r_min <= r_max must lie in 0..1, not {options.r_min} and {options.r_max}")
        if not 0 < options.max_phase <= 2 * math.pi:
            raise ConfigError(f"max_phase must lie within one turn, above 0, not {options.max_phase}")
        low, high = options.r_min**2, options.r_max**2
        square_N = (low + (high - low) * torch.rand(N, dtype=torch.float64)).clamp(EDGE, 1 - EDGE)
        phase_N = options.max_phase * torch.rand(N, dtype=torch.float64).clamp_min(EDGE)
        self.decay_log = nn.Parameter((-0.5 * square_N.log()).log().float())
        self.phase_log = nn.Parameter(phase_N.log().float())
        self.gain_log = nn.Parameter(0.5 * torch.log1p(-square_N).float()) if options.normalise else None
        self.input = nn.Parameter(torch.randn(N, 2, width) * (2 * width) ** -0.5)
        self.readout = nn.Parameter(torch.randn(1 if options.causal else 2, width, N, 2) * N**-0.5)
        self.skip = nn.Parameter(torch.randn(width))
        self.after = Output(width, width, options.activation, options.output)

    @property
    def wide(self) -> torch.dtype:
        """Real dtype of the states."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        if not self.config.causal:
            return super().initial_state(batch, capacity=capacity)
        zeros_BN2 = self.skip.new_zeros(batch, self.config.state, 2, dtype=self.wide)
        return self.State(h_BN2=zeros_BN2, length_B=self.no_length(batch))

    def param_groups(self) -> list[ParamGroup]:
        """Decays, phases and normalisation: a small learning rate, no weight decay."""
        names = ("decay_log", "phase_log") + (("gain_log",) if self.gain_log is not None else ())
        return [ParamGroup(names=names, lr=self.config.learning_rate, weight_decay=0.0)]

    def kernel(self, length: int) -> Tensor:
        """Impulse responses (R, D out, D in, length) without the skip: lags 0, 1, ..., where not causal also -1, ..."""
        with torch.autocast(self.skip.device.type, enabled=False):
            C_RDN = torch.view_as_complex(self.readout.to(self.wide))
            B_ND = torch.view_as_complex(self._gained().transpose(1, 2).contiguous())
            c_RDDN = C_RDN[:, :, None] * B_ND.T
            flat_X1N = c_RDDN.reshape(-1, 1, self.config.state)
            return vandermonde(self._log_a()[None], flat_X1N, length).view(*c_RDDN.shape[:3], length)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Map into the modes, scan, read out; the state is what the scan reached at each row's last input."""
        length = x_BTD.shape[1]
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        u_BTN = self._modes(x_BTD)
        a_11N = self._log_a().exp().to(u_BTN.dtype)[None, None]
        before_BN = torch.zeros_like(u_BTN[:, 0]) if state is None else torch.view_as_complex(state.h_BN2)
        h_BTN, _ = linear_scan(a_11N, u_BTN, before_BN)
        y_BTD = self._read(h_BTN, 0, x_BTD.dtype)
        if not self.config.causal:
            late_BTN, _ = linear_scan(a_11N, u_BTN, torch.zeros_like(before_BN), True)
            y_BTD = y_BTD + pad(self._read(late_BTN[:, 1:], 1, x_BTD.dtype), (0, 0, 0, 1))
        out_BTD = self.after((y_BTD + self.skip * x_BTD).to(x_BTD.dtype))
        if state is None:
            return out_BTD, None
        h_BN2 = torch.view_as_real(_last(h_BTN, before_BN, layout.lengths_B))
        return out_BTD, replace(state, h_BN2=h_BN2, length_B=layout.advance(state.length_B, length), trail=None)

    def flops(self, length: int) -> int:
        """Per readout the scan and the map out of the modes; the map into them, and the one that mixes channels."""
        N, D = self.config.state, self.width
        readouts = 1 if self.config.causal else 2
        beyond = 0 if self.config.causal else 2 * N * D  # the last column has no future
        return 2 * (length * (2 * N * D + readouts * (4 * N + 2 * N * D) + self.after.macs) - beyond)

    def state_bytes(self, length: int) -> int:
        """N complex numbers and the length."""
        return 2 * self.config.state * self.wide.itemsize + 8

    @derived
    def _log_a(self) -> Tensor:
        """Log a (N), complex128: in float32 a phase would lose a digit with every further digit of the lag."""
        return torch.complex(-self.decay_log.double().exp(), self.phase_log.double().exp())

    @derived
    def _gained(self) -> Tensor:
        """G B (N, 2, D)."""
        B_N2D = self.input.to(self.wide)
        return B_N2D if self.gain_log is None else self.gain_log.to(self.wide).exp()[:, None, None] * B_N2D

    def _modes(self, x_BTD: Tensor) -> Tensor:
        """G B x as complex numbers: one real product, its outputs in pairs."""
        u_BTX = linear(x_BTD, self._gained().flatten(0, 1).to(x_BTD.dtype))
        return torch.view_as_complex(u_BTX.to(self.wide).unflatten(2, (-1, 2)))

    def _read(self, h_BTN: Tensor, which: int, dtype: torch.dtype) -> Tensor:
        """Re(C h): the real product of (Re C, -Im C) and (Re h, Im h)."""
        C_DX = (self.readout[which] * self.readout.new_tensor([1.0, -1.0])).flatten(1)
        return linear(torch.view_as_real(h_BTN).flatten(2).to(dtype), C_DX.to(dtype))


def _last(h_BTN: Tensor, before_BN: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The state at each row's last valid column; what was before where a row has none."""
    if lengths_B is None:
        return h_BTN[:, -1]
    rows_B = torch.arange(len(h_BTN), device=h_BTN.device)
    return torch.where((lengths_B > 0)[:, None], h_BTN[rows_B, (lengths_B - 1).clamp_min(0)], before_BN)
