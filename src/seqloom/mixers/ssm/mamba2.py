"""Mamba-2: a selective state space whose decay is one number a head, and so a linear attention that forgets.

    z, x, B, C, dt~ = W_in u       x, B, C = silu(conv(x, B, C))       dt = softplus(dt~ + b)
    S_t = exp(-dt_t exp(A)) S_{t-1} + B_t (dt_t x_t)^T       y_t = S_t^T C_t + D x_t
    out = W_out rms(y * silu(z))

B and C, of G groups, are what keys and queries are to attention; the rate exp(A) is one number a head. The order of
W_in's outputs, of the convolution's channels and of the norm's groups is that of the authors and of transformers, so
that their weights fit under other names (the convolution's without its axis of length one). Step sizes, decays and
states are float32 or wider; at a pad dt is 0, which holds the state.

Decided here: 64 states by default, as in Hydra and as little as the paper's models use; the authors' language models
have 128. Rates are drawn uniformly from ``decay``, as in the authors' code; transformers counts them 1, 2, 3, ...

Shapes: B batch, T time, D width, E inner channels, H heads, P channels of a head, G groups, N states, K inputs that the
convolution keeps, I channels of the convolution (E + 2 G N).
Source: Dao and Gu, "Transformers are SSMs: generalized models and efficient algorithms through structured state space
duality", 2024, arXiv:2405.21060, sections 3, 6 and 7.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._decayed import Taps, decayed
from seqloom.mixers.ssm._ssd import GatedNorm, decay_logs, split_heads, step_logits


class Mamba2(Mixer):
    """Selective state space with scalar decays; its state is one matrix a head and the convolution's last inputs."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position."""

        s_BHNP: Tensor
        inputs_BKI: Tensor
        """What the convolution still sees."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of Mamba-2."""

        expand: int = 2
        """Inner channels, as a multiple of the width."""
        head_width: int = 0
        """Channels of a head, a divisor of the inner ones; 0 = 64, or the largest power of two below that divides."""
        state: int = 64
        """States N of every channel: the width of keys and queries."""
        groups: int = 1
        """Sets of keys and queries, and groups of the norm; a divisor of the heads."""
        conv: int = 4
        """Taps of the convolution; 1 sees the position alone."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of step sizes at the start, log-uniform: 1 / step is how many positions a rate of 1 remembers."""
        step_limit: tuple[float, float] = (0.0, float("inf"))
        """Bounds of step sizes at any time."""
        decay: tuple[float, float] = (1.0, 16.0)
        """Range of the rates exp(A) at the start, uniform."""
        skip: Literal["head", "channel"] = "head"
        """Whether D is one number a head or one a channel."""
        bias: bool = False
        """Biases of the maps in and out."""
        conv_bias: bool = True
        """Bias of the convolution."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state, starts a segment by itself."""
        return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state", packing="native")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(head_width=4, state=3, groups=2, conv=2, skip="channel", bias=True),
            cls.Config(expand=1, head_width=2, state=5, conv=1, conv_bias=False, step_limit=(0.01, 0.5)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        self._refuse(options)
        self.inner = E = options.expand * width
        self.heads, self.head_width = split_heads(E, options.head_width)
        if self.heads % options.groups:
            raise ConfigError(f"groups must divide the {self.heads} heads, and {options.groups} does not")
        self.channels = E + 2 * options.groups * options.state
        self.into = Linear(width, E + self.channels + self.heads, bias=options.bias)
        self.conv = Taps(self.channels, options.conv, bias=options.conv_bias)
        self.step_bias = nn.Parameter(step_logits(self.heads, options.steps))
        self.decay_log = nn.Parameter(decay_logs(self.heads, options.decay))
        self.skip = nn.Parameter(torch.ones(E if options.skip == "channel" else self.heads))
        self.norm = GatedNorm(E, options.groups)
        self.output = Linear(E, width, bias=options.bias)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of step sizes, decays and states."""
        return torch.promote_types(self.decay_log.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        new, options = self.decay_log.new_zeros, self.config
        return self.State(
            s_BHNP=new(batch, self.heads, options.state, self.head_width, dtype=self.wide),
            inputs_BKI=new(batch, options.conv - 1, self.channels, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def param_groups(self) -> list[ParamGroup]:
        """Step sizes, rates and skips get no weight decay."""
        return [ParamGroup(names=("step_bias", "decay_log", "skip"), weight_decay=0.0)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, convolve, decay and sum, gate, project."""
        length, E = x_BTD.shape[1], self.inner
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        z_BTE, u_BTI, step_BTH = self.into(x_BTD).split([E, self.channels, self.heads], -1)
        u_BTI, inputs_BKI = self.conv(u_BTI, None if state is None else state.inputs_BKI, layout)
        with torch.autocast(x_BTD.device.type, enabled=False):
            step_BTH = self._steps(step_BTH, valid_BT)
            y_BTHP, s_BHNP = self._recur(u_BTI, step_BTH, None if state is None else state.s_BHNP, layout)
            y_BTE = self.norm(y_BTHP.flatten(2), z_BTE).to(u_BTI.dtype)
        y_BTD = self.output(y_BTE)
        if state is None:
            return y_BTD, None
        length_B = layout.advance(state.length_B, length)
        return y_BTD, replace(state, s_BHNP=s_BHNP, inputs_BKI=inputs_BKI, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """The maps, the convolution, and per position and head the matrix written and read."""
        weights = self.into.weight.numel() + self.output.weight.numel() + self.conv.weight.numel()
        return 2 * length * (weights + 2 * self.inner * self.config.state)

    def state_bytes(self, length: int) -> int:
        """One matrix a head, the inputs that the convolution keeps, and the length."""
        options = self.config
        return (self.inner * options.state + (options.conv - 1) * self.channels) * self.wide.itemsize + 8

    def _refuse(self, options: Config) -> None:
        """Options that mean nothing."""
        for name in ("expand", "state", "groups"):
            if getattr(options, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(options, name)}")
        low, high = options.step_limit
        if not 0 <= low < high:
            raise ConfigError(f"step_limit must be a range from 0 on, low first, not {options.step_limit}")
        if options.skip not in ("head", "channel"):
            raise ConfigError(f"skip is 'head' or 'channel', not {options.skip!r}")

    def _steps(self, step_BTH: Tensor, valid_BT: Tensor | None) -> Tensor:
        step_BTH = softplus(step_BTH.to(self.wide) + self.step_bias.to(self.wide))
        if self.config.step_limit != (0.0, float("inf")):
            step_BTH = step_BTH.clamp(*self.config.step_limit)
        return step_BTH if valid_BT is None else step_BTH.masked_fill(~valid_BT[..., None], 0)

    def _recur(self, u_BTI: Tensor, step_BTH: Tensor, s_BHNP: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:
        """The sum and the skip, in the wide dtype."""
        G, N, wide = self.config.groups, self.config.state, self.wide
        x_BTE, b_BTGN, c_BTGN = u_BTI.split([self.inner, G * N, G * N], -1)
        b_BTGN, c_BTGN = b_BTGN.unflatten(-1, (G, N)), c_BTGN.unflatten(-1, (G, N))
        x_BTHP = x_BTE.to(wide).unflatten(-1, (self.heads, -1))
        drive_BTHP = (x_BTHP * step_BTH[..., None]).to(u_BTI.dtype)
        log_decay_BTH1 = (-self.decay_log.to(wide).exp() * step_BTH)[..., None]
        y_BTHP, s_BHNP = decayed(c_BTGN, b_BTGN, drive_BTHP, log_decay_BTH1, s_BHNP, layout)
        return y_BTHP.to(wide) + self.skip.to(wide).view(self.heads, -1) * x_BTHP, s_BHNP
