"""SeqBoat: a moving average everywhere, and attention only at the positions that ask for it.

    m = silu(EMA(x))          p = softmax(W_r m / e^tau) over (rest, attend);  active where attend is larger
    active positions side by side:          z, r, v = silu(W_m m);  q, k = z g + b, turned by position
                                            h = p W_h [attention over the window of active ones (q, k, v) * r]
    y = silu(W_x m + h + x)                 h = 0 where a position rests

The window counts active positions, so that in the sequence it reaches as far as they lie apart. The router learns
through the factor p of active positions alone: there is no noise, no straight-through estimate and no balance loss.
Attention weights are a softmax, or the paper's other choice, relu(q . k)^2 / window.

Shapes: B batch, T time, D width, P active positions of all rows in line, L of the longest row, Z query and key width,
E value width, W = window - 1 slots.
Source: Ren, Liu, Wang, Xu, Zhu, Zhai, "Sparse modular activation for efficient sequence modeling", 2023,
arXiv:2306.11197. There x in y is what enters the block's norm; here the block adds that by its own residual connection,
and x in y is the normed input.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.block_attention import block_attention
from seqloom.kernels.route import Routes
from seqloom.layers.linear import Linear
from seqloom.layers.rotary import Rotary
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._recent import Recent
from seqloom.mixers.ssm.ema import EMA


class SeqBoat(Mixer):
    """Moving averages with sparsely activated attention; its state is both memories, of fixed size."""

    @dataclass(frozen=True, kw_only=True)
    class State(Recent):
        """The latest active positions, and the averages."""

        ema: BaseState

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of both parts."""

        averages: int = 4
        """Moving averages of each channel."""
        window: int = 64
        """Active positions that an active one sees, itself included."""
        key_factor: float = 0.5
        """Channels of queries and keys as a multiple of the width; rounded down to an even number."""
        value_factor: float = 2.0
        """Channels of values as a multiple of the width."""
        weights: Literal["softmax", "relu2"] = "softmax"
        """How scores become weights."""
        sparse: bool = True
        """False lets every position attend, without a router: the dense layer beside it."""
        causal: bool = True
        """False lets averages run both ways, and an active position see as many behind it as before it."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """To rounding, through the averages; how much is attended depends on the data."""
        unknown = "which positions attend, and so how many, is known only when they are there"
        gaps = {"flops": unknown, "compilation": unknown}
        if not config.causal:
            alone: dict[str, Any] = {"step": "none", "rollback": "none", "sequence_comm": "forbidden"}
            return Traits(causal="no", bidirectional="native", known_gaps=gaps, **alone)
        return Traits(causal="fft", step="window", rollback="recorded", sequence_comm="state", known_gaps=gaps)

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(window=3, sparse=False),
            cls.Config(averages=2, window=3, weights="relu2"),
            cls.Config(averages=3, window=4, weights="relu2", causal=False),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Queries and keys are two scalings of one map."""
        super().__init__(width, config)
        options = self.config
        self.keys, self.values = int(width * options.key_factor) // 2 * 2, int(width * options.value_factor)
        if min(self.keys, self.values, options.window) < 1:
            raise ConfigError(
                f"seqboat: window, key_factor and value_factor leave nothing of the width {width}: {options}"
            )
        if options.weights not in ("softmax", "relu2"):
            raise ConfigError(f"seqboat: weights are softmax or relu2, not {options.weights!r}")
        plain: dict[str, Any] = {"activation": "none", "output": "none", "causal": options.causal}
        self.ema = EMA(width, EMA.Config(state=options.averages, **plain))
        self.route = Linear(width, 2) if options.sparse else None
        self.temperature = nn.Parameter(torch.tensor(0.5 * math.log(width))) if options.sparse else None
        self.into = Linear(width, self.keys + 2 * self.values)
        self.scale = nn.Parameter(torch.randn(2, self.keys) * 0.02)
        self.shift = nn.Parameter(torch.zeros(2, self.keys))
        self.rotary = Rotary(self.keys, Rotary.Config())
        self.back = Linear(self.values, width)
        self.past = Linear(width, width)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Averages of nothing, no active position."""
        new, slots = self.past.weight.new_zeros, self.config.window - 1
        ema, length_B = self.ema.initial_state(batch), self.no_length(batch)
        return self.State(
            length_B=length_B,
            k_BGWK=new(batch, 1, slots, self.keys),
            v_BGWV=new(batch, 1, slots, self.values),
            entered_B=length_B.clone(),
            ema=ema,
        )

    def param_groups(self) -> list[ParamGroup]:
        """Those of the averages; the temperature and the scales of queries and keys get no weight decay."""
        groups = [replace(g, names=tuple(f"ema.{name}" for name in g.names)) for g in self.ema.param_groups()]
        own = ("temperature", "scale", "shift") if self.config.sparse else ("scale", "shift")
        return [*groups, ParamGroup(names=own)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Average, choose, attend, add."""
        B, T, _ = x_BTD.shape
        before_B = self.no_length(B) if state is None else state.length_B
        m_BTD, ema = self.ema.mix(x_BTD, None if state is None else state.ema, layout, None)
        m_BTD = silu(m_BTD)
        active_BT, p_BT = self.choose(m_BTD)
        valid_BT = layout.valid_BT(T)
        active_BT = active_BT if valid_BT is None else active_BT & valid_BT
        routes = Routes.of(torch.where(active_BT, 0, -1)[..., None], 1)
        where_P = layout.where_BT(T, before_B).expand(B, T).flatten()[routes.item_P]
        h_PD, after = self._attend(routes.line(m_BTD), where_P, routes, state)
        h_BTD = routes.scatter(h_PD)[:, :, 0] * p_BT[..., None].to(h_PD.dtype)
        y_BTD = silu(self.past(m_BTD) + h_BTD + x_BTD)
        if after is None:
            return y_BTD, None
        return y_BTD, replace(after, ema=ema, length_B=layout.advance(before_B, T), trail=None)

    def choose(self, m_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Which positions attend (B, T), and how sure that is, in float32 or wider."""
        if self.route is None or self.temperature is None:
            return torch.ones_like(m_BTD[..., 0], dtype=torch.bool), torch.ones_like(m_BTD[..., 0])
        with torch.autocast(m_BTD.device.type, enabled=False):
            wide = torch.promote_types(m_BTD.dtype, torch.float32)
            weight, bias = self.route.weight.to(wide), self.route.bias.to(wide)
            logits_BT2 = (m_BTD.to(wide) @ weight.T + bias) * (-self.temperature.to(wide)).exp()
            p_BT, choice_BT = torch.softmax(logits_BT2, -1).max(-1)
        return choice_BT == 1, p_BT

    def flops(self, length: int) -> int:
        """With a router, where every second position attends, as about at the start."""
        active = -(-length // 2) if self.route is not None else length
        maps = sum(layer.weight.numel() for layer in (self.into, self.back))
        reach = self.config.window if self.config.causal else 2 * self.config.window - 1
        pairs = active * min(active, reach)
        attended = 2 * active * maps + 2 * pairs * (self.keys + self.values)
        everywhere = self.past.weight.numel() + (0 if self.route is None else self.route.weight.numel())
        return self.ema.flops(length) + 2 * length * everywhere + attended

    def state_bytes(self, length: int) -> int:
        """The averages, the window, whatever the length, and two counts."""
        window = (self.config.window - 1) * (self.keys + self.values) * self.past.weight.element_size()
        return self.ema.state_bytes(length) + window + 16

    def _attend(self, m_PD: Tensor, where_P: Tensor, routes: Routes, state: Any) -> tuple[Tensor, Any]:
        """What the active positions find (P, D), and the state with them in its window."""
        z_PZ, r_PE, v_PE = silu(self.into(m_PD)).split([self.keys, self.values, self.values], 1)
        qk_P2Z = z_PZ[:, None] * self.scale.to(z_PZ.dtype) + self.shift.to(z_PZ.dtype)
        qk_P2Z = self.rotary(qk_P2Z[None], where_P[None])[0]
        q, k, v = (routes.rows(x)[:, None] for x in (qk_P2Z[:, 0], qk_P2Z[:, 1], v_PE))
        lengths_B, after = routes.lengths_R, None
        if state is None:
            span_BT2 = self._span(q.shape[2], lengths_B)
        else:
            span_BT2 = state.span(q.shape[2], self.config.window)
            k, v = state.joined(k, v)
            after = state.push(k, v, lengths_B)
        o = self._look(q, k, v, span_BT2) if q.shape[2] else q.new_zeros(len(q), 1, 0, self.values)
        return self.back(routes.unrows(o[:, 0]) * r_PE), after

    def _span(self, length: int, lengths_B: Tensor) -> Tensor:
        """Active positions that each one sees, from nothing (B, L, 2)."""
        at_L, window = torch.arange(length, device=lengths_B.device), self.config.window
        first_L = (at_L + 1 - window).clamp_min(0)
        stop_BL = (at_L + 1).expand(len(lengths_B), -1)
        if not self.config.causal:
            stop_BL = torch.minimum(at_L + window, lengths_B[:, None])
        return torch.stack([first_L.expand_as(stop_BL), stop_BL], -1)

    def _look(self, q: Tensor, k: Tensor, v: Tensor, span_BT2: Tensor) -> Tensor:
        if self.config.weights == "softmax":
            return block_attention(q, k, v, span_BT2)[0]
        found, window = [], self.config.window
        shift = k.shape[2] - q.shape[2]
        for start in range(0, q.shape[2], window):
            rows = slice(start, start + window)
            keys = slice(max(0, start + shift - window + 1), start + shift + 2 * window)
            at = torch.arange(k.shape[2], device=q.device)[keys]
            span = span_BT2[:, rows, None]
            seen = (at >= span[..., 0]) & (at < span[..., 1])
            s = torch.relu(q[:, :, rows] @ k[:, :, keys].transpose(2, 3)).square() * seen[:, None]
            found.append((s / (window if self.config.causal else 2 * window)) @ v[:, :, keys])
        return torch.cat(found, 2)
