"""Hydra: every position sees both sides through one quasiseparable matrix, in linear time.

    z, x, B, C, B', C', dt~, dt~' = W_in u          x, B, C, B', C' = silu(centred conv)       dt = softplus(dt~ + b)
    y = shift(SS(x)) + flip(shift(SS'(flip x))) + (D + W_D x) * x                  out = W_out [rms(y) * silu(z)]

SS is Mamba-2's sum, S_t = exp(-dt_t exp(A)) S_{t-1} + B_t (dt_t x_t)^T, read by C_t; SS' is the same with B', C', dt'.
The shift, by one position with nothing in front, keeps each of them off the diagonal: what a position sees of itself is
the third term alone, free and chosen by the input. The matrix of a head,

    M_ij = C_{i-1} . B_j exp(sum of log a over j+1 .. i-1) dt_j   (j < i)       and its mirror image   (j > i),

has off-diagonal blocks of rank N at most. Shift and flip stay within the valid columns of a row, and within a segment
where rows are packed. The norm comes before the gate. A and the bias b are shared by both directions; both are one
call on twice the rows.

With ``diagonal="sum"`` nothing is shifted: forwards plus backwards, as bidirectional Mamba-2 adds them.

Shapes: B batch, T time, D width, E inner channels, H heads, P channels of a head, G groups, N states, F = 2 directions,
I channels of the convolution (E + 4 G N).
Source: Hwang, Lahoti, Dao, Gu, "Hydra: bidirectional state space models through generalized matrix mixers", 2024,
arXiv:2407.09941, sections 3 and 4.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.state import State as BaseState
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._decayed import Taps, decayed
from seqloom.mixers.ssm._ssd import GatedNorm, backwards, decay_logs, split_heads, step_logits


class Hydra(Mixer):
    """Bidirectional state space by a quasiseparable matrix; needs the whole sequence, so that it has no state."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of Hydra."""

        expand: int = 2
        """Inner channels, as a multiple of the width."""
        head_width: int = 0
        """Channels of a head, a divisor of the inner ones; 0 = 64, or the largest power of two below that divides."""
        state: int = 64
        """States N of every channel in each direction: the rank of the blocks off the diagonal."""
        groups: int = 1
        """Sets of B and C a direction; a divisor of the heads."""
        conv: int = 7
        """Taps of the centred convolution; odd, 1 sees the position alone."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of step sizes at the start, log-uniform."""
        decay: tuple[float, float] = (1.0, 1.0)
        """Range of the rates exp(A) at the start, uniform."""
        diagonal: Literal["data", "fixed", "sum"] = "data"
        """data: D + W_D x; fixed: D; sum: D and what both directions hold there, as in bidirectional Mamba-2."""
        bias: bool = False
        """Biases of the maps in and out."""
        conv_bias: bool = True
        """Bias of the convolution."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Sees the future; two directions cannot be handed on from one neighbour along time."""
        return Traits(
            causal="no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="native",
            packing="unfold",
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(head_width=4, state=3, groups=2, conv=3, diagonal="fixed", bias=True),
            cls.Config(expand=1, head_width=2, state=5, conv=1, conv_bias=False, diagonal="sum", decay=(0.5, 4.0)),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        for name in ("expand", "state", "groups"):
            if getattr(options, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(options, name)}")
        if options.diagonal not in ("data", "fixed", "sum"):
            raise ConfigError(f"diagonal is 'data', 'fixed' or 'sum', not {options.diagonal!r}")
        self.inner = E = options.expand * width
        self.heads, self.head_width = split_heads(E, options.head_width)
        if self.heads % options.groups:
            raise ConfigError(f"groups must divide the {self.heads} heads, and {options.groups} does not")
        self.channels = E + 4 * options.groups * options.state
        self.into = Linear(width, E + self.channels + 2 * self.heads, bias=options.bias)
        self.conv = Taps(self.channels, options.conv, bias=options.conv_bias, centred=True)
        self.step_bias = nn.Parameter(step_logits(self.heads, options.steps))
        self.decay_log = nn.Parameter(decay_logs(self.heads, options.decay))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.skip_map = Linear(E, self.heads, bias=False) if options.diagonal == "data" else None
        self.norm = GatedNorm(E, gate_last=True)
        self.output = Linear(E, width, bias=options.bias)

    @property
    def wide(self) -> torch.dtype:
        """Dtype of step sizes, decays and sums."""
        return torch.promote_types(self.decay_log.dtype, torch.float32)

    def param_groups(self) -> list[ParamGroup]:
        """Step sizes, rates and the fixed part of the diagonal get no weight decay."""
        return [ParamGroup(names=("step_bias", "decay_log", "skip"), weight_decay=0.0)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, convolve, sum in both directions, norm, gate, project."""
        E, GN = self.inner, self.config.groups * self.config.state
        valid_BT = layout.valid_BT(x_BTD.shape[1])
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        z_BTE, u_BTI, step_BTF = self.into(x_BTD).split([E, self.channels, 2 * self.heads], -1)
        u_BTI, _ = self.conv(u_BTI, None, layout)
        u_BTE, key_BTX, query_BTX, key2_BTX, query2_BTX = u_BTI.split([E, GN, GN, GN, GN], -1)
        skip_BTH = None if self.skip_map is None else self.skip_map(u_BTE)
        with torch.autocast(x_BTD.device.type, enabled=False):
            step_BTFH = softplus(step_BTF.to(self.wide).unflatten(-1, (2, -1)) + self.step_bias.to(self.wide))
            if valid_BT is not None:
                step_BTFH = step_BTFH.masked_fill(~valid_BT[..., None, None], 0)
            log_decay_BTFH = -self.decay_log.to(self.wide).exp() * step_BTFH
            wide_BTHP = u_BTE.to(self.wide).unflatten(-1, (self.heads, -1))
            drive_BTFHP = (wide_BTHP[:, :, None] * step_BTFH[..., None]).to(u_BTE.dtype)
            groups = (2, self.config.groups, -1)
            keys_BTFGN = torch.cat([key_BTX, key2_BTX], -1).unflatten(-1, groups)
            queries_BTFGN = torch.cat([query_BTX, query2_BTX], -1).unflatten(-1, groups)
            shift = self.config.diagonal != "sum"
            y_BTHP = both_ways(queries_BTFGN, keys_BTFGN, drive_BTFHP, log_decay_BTFH, layout.lengths_B, shift)
            skip_BTH1 = self.skip.to(self.wide)[:, None]
            skip_BTH1 = skip_BTH1 if skip_BTH is None else skip_BTH1 + skip_BTH.to(self.wide)[..., None]
            y_BTHP = y_BTHP.to(self.wide) + skip_BTH1 * wide_BTHP
            y_BTE = self.norm(y_BTHP.flatten(2), z_BTE).to(u_BTE.dtype)
        return self.output(y_BTE), None

    def flops(self, length: int) -> int:
        """The maps, the convolution, and per position, head and direction the matrix written and read."""
        maps = (self.into, self.output) if self.skip_map is None else (self.into, self.output, self.skip_map)
        weights = sum(layer.weight.numel() for layer in maps) + self.conv.weight.numel()
        return 2 * length * (weights + 4 * self.inner * self.config.state)

    def state_bytes(self, length: int) -> int:
        """There is no state."""
        return 0


def both_ways(
    q_BTFGN: Tensor,
    k_BTFGN: Tensor,
    v_BTFHP: Tensor,
    log_decay_BTFH: Tensor,
    lengths_B: Tensor | None = None,
    shift: bool = True,
) -> Tensor:
    """Decayed sums over what precedes and what follows each position (B, T, H, P), itself left out if shifted.

    Direction 0 of the axis F runs forwards, direction 1 backwards. Outputs at pads mean nothing.
    """

    def rows(x_BTF: Tensor) -> Tensor:
        """Both directions as rows of one call, the second one read backwards."""
        return torch.cat([x_BTF[:, :, 0], backwards(x_BTF[:, :, 1], lengths_B)])

    q, k, v, log_decay = rows(q_BTFGN), rows(k_BTFGN), rows(v_BTFHP), rows(log_decay_BTFH)[..., None]
    y_XTHP, _ = decayed(q, k, v, log_decay, None, PLAIN)
    if shift:
        y_XTHP = pad(y_XTHP[:, :-1], (0, 0, 0, 0, 1, 0))
    ahead_BTHP, behind_BTHP = y_XTHP.chunk(2)
    return ahead_BTHP + backwards(behind_BTHP, lengths_B)
