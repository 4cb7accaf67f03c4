"""How a matrix of keys and values is written; read S^T q is the same for all.

    gated_delta   S <- a S;  S <- S + b k (v - S^T k)^T        a = exp(-exp(L) softplus(. + c)),  b = sigmoid(.)
    delta         S <- S + b k (v - S^T k)^T
    decay         S <- a S + k v^T
    channels      S <- diag(a) S + k v^T                        a = sigmoid(.)^(1/16), one a key channel (GLA)
    linear        S <- S + k v^T

Shapes: B batch, T time, H heads, K key, V value, E channels of queries, keys and values, A gate channels.
Source: Yang, Kautz and Hatamizadeh, "Gated delta networks", 2024, arXiv:2412.06464, section 3; Du et al.,
"MoM: linear sequence modeling with mixture-of-memories", 2025, arXiv:2502.13685, table 1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize, softplus

from seqloom.core.errors import ConfigError
from seqloom.kernels.decay_attention import decay_attention
from seqloom.kernels.delta_rule import delta_rule

Rule = Literal["gated_delta", "delta", "decay", "channels", "linear"]
RULES = ("gated_delta", "delta", "decay", "channels", "linear")
TEMPERATURE = 16.0
"""Of the rule "channels": how near to one its decays are at the start."""
STEP, LEAST = (1e-3, 1e-1), 1e-4
"""Step sizes at the start, uniform in their logarithm, and the least one."""
RATE = 16.0
"""Largest rate exp(L) at the start; uniform from zero."""


@dataclass(frozen=True)
class Sizes:
    """Widths that a memory is made of."""

    heads: int
    keys: int
    """Key channels of all heads."""
    values: int
    """Value channels of all heads."""

    @classmethod
    def of(cls, name: str, width: int, heads: int, factors: tuple[float, float]) -> "Sizes":
        """From factors of the width; ConfigError where the heads do not divide what comes out."""
        if heads < 1:
            raise ConfigError(f"{name}: heads must be at least 1, not {heads}")
        keys, values = (int(width * factor) for factor in factors)
        for option, channels in (("key_factor", keys), ("value_factor", values)):
            if channels < 1 or channels % heads:
                raise ConfigError(f"{name}: {option} of the width {width} is {channels} channels for {heads} heads")
        return cls(heads, keys, values)

    def gates(self, rule: str) -> int:
        """Channels A that say how to write."""
        return {"gated_delta": 2 * self.heads, "channels": self.keys, "linear": 0}.get(rule, self.heads)

    def macs(self, rule: str) -> int:
        """Multiply-adds of a position: the state read by the query, written, and read by the key where it is."""
        return (3 if "delta" in rule else 2) * self.keys * self.values // self.heads


class Writing(nn.Module):
    """A rule with its constants; what differs from memory to memory, keys, values and gates, is given."""

    def __init__(self, rule: str, sizes: Sizes, *, negative: bool = False) -> None:
        """``negative`` lets b reach 2, so that a key can turn what it finds to its opposite."""
        super().__init__()
        if rule not in RULES:
            raise ConfigError(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
        if negative and "delta" not in rule:
            raise ConfigError(f"negative=True belongs to a delta rule, not to {rule!r}")
        self.rule, self.sizes, self.most = rule, sizes, 2.0 if negative else 1.0
        if rule in ("gated_delta", "decay"):
            self.rate_log = nn.Parameter(torch.empty(sizes.heads).uniform_(0, RATE).clamp_min(1e-4).log())
            self.step_bias = nn.Parameter(_first_steps(sizes.heads))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        gates_BTA: Tensor,
        s: Tensor,
        segments: Tensor | None,
        lengths: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return what the queries read (B, T, H, V) and the last state; columns from ``lengths`` on hold it.

        Queries, keys (B, T, H K) and values (B, T, H V) come as their maps made them: here q and k get length one, and
        q the factor K^-1/2.
        """
        H, wide = self.sizes.heads, s.dtype
        q, k, v = (x.unflatten(-1, (H, -1)) for x in (q, k, v))
        q = _unit(q, wide) * (self.sizes.keys // H) ** -0.5
        k, gates_BTA = _unit(k, wide), gates_BTA.to(wide)
        v = v.to(wide)
        if "delta" in self.rule:
            beta_BTH = self.most * gates_BTA[..., :H].sigmoid()
            decay_BTH = self._decays(gates_BTA[..., H:]) if self.rule == "gated_delta" else torch.zeros_like(beta_BTH)
            return delta_rule(q, k, v, decay_BTH, beta_BTH, s, segments, lengths)
        if self.rule == "linear":
            decay = k.new_zeros(1, 1, H, 1).expand(*k.shape[:2], -1, -1)
        elif self.rule == "channels":
            decay = (logsigmoid(gates_BTA) / TEMPERATURE).unflatten(-1, (H, -1))
        else:
            decay = self._decays(gates_BTA)[..., None]
        if lengths is not None:
            pad_BT11 = (torch.arange(k.shape[1], device=k.device) >= lengths[:, None])[..., None, None]
            k, decay = k.masked_fill(pad_BT11, 0), decay.masked_fill(pad_BT11, 0)
        return decay_attention(q, k, v, decay, s, segments)

    def _decays(self, step_BTH: Tensor) -> Tensor:
        wide = step_BTH.dtype
        return -self.rate_log.to(wide).exp() * softplus(step_BTH + self.step_bias.to(wide))


def _unit(x_BTHK: Tensor, wide: torch.dtype) -> Tensor:
    """Vectors of length one, or less where they are nearly nothing."""
    return normalize(x_BTHK.to(wide), dim=-1, eps=1e-6)


def _first_steps(heads: int) -> Tensor:
    low, high = (torch.tensor(value).log() for value in STEP)
    step_H = torch.empty(heads).uniform_(float(low), float(high)).exp().clamp_min(LEAST)
    return step_H + (-torch.expm1(-step_H)).log()
