"""ProbSparse attention: only the queries whose scores stand out are answered, by looking at all keys.

    M_i = max over s in sample_i of q_i . k_s  -  (sum over s in sample_i of q_i . k_s) / S
    o_i = softmax(q_i K^T / sqrt(K)) V for the u = c ceil(ln T) queries with the largest M;  mean(V) for the others

Each query draws U = c ceil(ln S) keys with replacement, the same for all rows and heads; the second term is divided by
the number of all keys S, as in the authors' code (the paper says a mean). With ``causal``:

    "masked"   as published: a query looks at its past, a lazy one gets the running sum of V. Which queries are lazy
               depends on later queries and keys: the values are causal, the choice is not.
    "strict"   query i samples c ceil(ln (i + 1)) keys of its own past, S being i + 1, and is answered if it stands
               among as many best of the queries up to its own; a lazy one gets the running mean. Nothing looks ahead,
               nor at how long the sequence will be.

Samples are drawn anew in training; outside, and always in the strict form, they are a fixed sequence.

Shapes: B batch, T queries, S keys (= T), D width, H heads, K head width, U keys drawn a query, u queries answered.
Source: Zhou et al., "Informer: beyond efficient transformer for long sequence time-series forecasting", 2021,
arXiv:2012.07436, section 3.1.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State
from seqloom.kernels.block_attention import block_attention
from seqloom.layers._selection import best
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, Traits

GOLDEN = (math.sqrt(5) - 1) / 2
ROOM = 1 << 22
"""Elements of gathered keys at a time."""
PIECE = 64
"""Queries that are ranked at a time."""


class ProbSparse(Mixer):
    """Attention that answers few queries in full."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Heads, how much is sampled, and who sees what."""

        heads: int = 4
        """Heads; must divide the width."""
        factor: float = 5.0
        """The constant c: keys drawn a query and queries answered, in units of ceil(ln T)."""
        causal: Literal["no", "masked", "strict"] = "no"
        """See everything, the past with a choice that looks ahead, or the past alone."""
        lazy: Literal["mean", "sum"] = "mean"
        """What queries get that are not answered; the published causal form has the running sum."""
        redraw: bool = True
        """Draw other keys at each call in training; False = the fixed sequence there too."""
        bias: bool = True
        """Biases of all maps."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """No state: who is answered depends on the whole sequence, or on all of the past."""
        causal = {"masked": "selection", "strict": "exact"}.get(config.causal, "no")
        gaps = {}
        if config.causal != "no":
            gaps["flops"] = "an answered query counts as if it saw everything"
        if config.causal == "strict":
            gaps["compilation"] = "how many queries are answered is known only when they are there"
        elif config.redraw:
            gaps["batch"] = "in training every call draws other keys"
        if config.causal != "no" and config.lazy == "sum":
            gaps["initial_scale"] = "the published running sum grows with the length"
        return Traits(
            causal=causal,  # type: ignore[arg-type]
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="native" if causal == "no" else "no",
            known_gaps=gaps,
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Who sees what, with more and with fewer queries than there are."""
        return (
            cls.Config(redraw=False),
            cls.Config(heads=2, factor=1.0, bias=False),
            cls.Config(causal="masked", lazy="sum", factor=1.0),
            cls.Config(causal="strict", factor=1.0),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, in this order."""
        super().__init__(width, config)
        options = self.config
        if options.heads < 1 or width % options.heads:
            raise ConfigError(f"prob_sparse: {options.heads} heads do not divide the width {width}")
        if options.factor <= 0:
            raise ConfigError(f"prob_sparse: factor must be positive, not {options.factor}")
        if options.causal not in ("no", "masked", "strict") or options.lazy not in ("mean", "sum"):
            raise ConfigError(f"prob_sparse: causal is no, masked or strict and lazy mean or sum, not {options}")
        self.qkv = Linear(width, 3 * width, bias=options.bias)
        self.out = Linear(width, width, bias=options.bias)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, State | None]:
        """Rows of one length together: how much is sampled depends on the length."""
        q, k, v = self.qkv(x_BTD).unflatten(2, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
        if layout.lengths_B is None:
            o_BHTK = self.look(q, k, v)
        else:
            o_BHTK = torch.zeros_like(q)
            for length in layout.lengths_B.unique().tolist():
                rows_R = (layout.lengths_B == length).nonzero().flatten()
                some = [x[rows_R, :, :length] for x in (q, k, v)]
                if length:
                    found = torch.nn.functional.pad(self.look(*some), (0, 0, 0, q.shape[2] - length))
                    o_BHTK = o_BHTK.index_copy(0, rows_R, found)
        return self.out(o_BHTK.transpose(1, 2).flatten(2)), None

    def flops(self, length: int) -> int:
        """Projections, the sample's scores, and two products for each query that is answered."""
        maps = self.qkv.weight.numel() + self.out.weight.numel()
        sampled, answered = self.amounts(length)
        return 2 * length * maps + 2 * self.width * (length * sampled + 2 * length * answered)

    def amounts(self, length: int) -> tuple[int, int]:
        """Keys drawn by each query, and queries answered, of a sequence of this length; both at most all."""
        most = max(1, math.ceil(self.config.factor * math.ceil(math.log(length)))) if length > 1 else 1
        return min(most, length), min(most, length)

    def look(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of rows of one length (B, H, T, K)."""
        T = q.shape[2]
        sampled, answered = self.amounts(T)
        over_T = (
            torch.arange(1, T + 1, device=q.device)
            if self.config.causal == "strict"
            else torch.full((T,), T, device=q.device)
        )
        measure_BHT = measure(q.detach(), k.detach(), self._sample(T, sampled, q.device), over_T)
        if self.config.causal == "strict":
            return self._strict(q, k, v, measure_BHT)
        lazy = _running(v, mean=self.config.lazy == "mean") if self.config.causal == "masked" else self._lazy(v)
        chosen_BHu = best(measure_BHT, answered)
        index = chosen_BHu[..., None].expand(-1, -1, -1, q.shape[3])
        seen = None
        if self.config.causal == "masked":
            seen = torch.arange(T, device=q.device) <= chosen_BHu[..., None]
        o_BHuK = block_attention(q.gather(2, index), k, v, seen)[0]
        return lazy.scatter(2, index, o_BHuK)

    def _lazy(self, v: Tensor) -> Tensor:
        total = v.sum(2, keepdim=True)
        return (total / v.shape[2] if self.config.lazy == "mean" else total).to(v.dtype).expand_as(v)

    def _sample(self, T: int, count: int, device: torch.device) -> Tensor:
        """Keys of each query (T, U), -1 = none: independent draws, or a fixed sequence of low discrepancy."""
        if self.training and self.config.redraw and self.config.causal != "strict":
            return torch.randint(T, (T, count), device=device)
        row_T, column_U = (torch.arange(n, device=device, dtype=torch.float64) for n in (T, count))
        draw_TU = row_T[:, None] * GOLDEN + (column_U + 1) * GOLDEN**2
        if self.config.causal != "strict":
            return ((draw_TU % 1.0) * T).long()
        reach_T1 = torch.arange(1, T + 1, device=device)[:, None]
        own_TU = torch.arange(count, device=device) < torch.minimum(self._quota(T, device)[:, None], reach_T1)
        return ((draw_TU % 1.0) * reach_T1).long().masked_fill(~own_TU, -1)

    def _strict(self, q: Tensor, k: Tensor, v: Tensor, measure_BHT: Tensor) -> Tensor:
        """Answer a query by its rank among those before it, from keys that it may see."""
        T = q.shape[2]
        quota_T = self._quota(T, q.device)
        chosen_BHT = ranks_before(measure_BHT, min(int(quota_T[-1]), T)) < quota_T
        lazy = _running(v, mean=self.config.lazy == "mean")
        most = int(chosen_BHT.sum(2).max())
        order_BHu = chosen_BHT.long().argsort(dim=2, descending=True, stable=True)[..., :most]
        index = order_BHu[..., None].expand(-1, -1, -1, q.shape[3])
        seen = torch.arange(T, device=q.device) <= order_BHu[..., None]
        o_BHuK = block_attention(q.gather(2, index), k, v, seen)[0]
        o_BHuK = torch.where(chosen_BHT.gather(2, order_BHu)[..., None], o_BHuK, lazy.gather(2, index))
        return lazy.scatter(2, index, o_BHuK)

    def _quota(self, T: int, device: torch.device) -> Tensor:
        at_T = torch.arange(1, T + 1, device=device)
        return (self.config.factor * at_T.to(torch.float64).log().ceil()).ceil().clamp_min(1)


def measure(q: Tensor, k: Tensor, sample_TU: Tensor, over_T: Tensor) -> Tensor:
    """How far a query's largest sampled score stands above the sum of them over a number of its own (B, H, T)."""
    (_, H, T, K), U = q.shape, sample_TU.shape[1]
    step, found = max(1, ROOM // max(1, len(q) * H * U * K)), []
    wide = torch.promote_types(q.dtype, torch.float32)
    for first in range(0, T, step):
        rows = slice(first, first + step)
        taken = k[:, :, sample_TU[rows].clamp_min(0).flatten()].unflatten(2, (-1, U))
        s, none = (taken @ q[:, :, rows, :, None]).squeeze(-1).to(wide), sample_TU[rows] < 0
        largest = s.masked_fill(none, -torch.inf).amax(-1)
        found.append(largest - s.masked_fill(none, 0).sum(-1) / over_T[rows].to(wide))
    return torch.cat(found, 2)


def ranks_before(x: Tensor, most: int) -> Tensor:
    """How many of the earlier entries of the last axis are as large, counted up to ``most``, beyond which it is less.

    Pieces of the axis are compared with themselves and with the ``most`` largest entries before them.
    """
    top, found = x.new_full((*x.shape[:-1], most), -torch.inf), []
    earlier = torch.ones(PIECE, PIECE, dtype=torch.bool, device=x.device).tril(-1)
    for here in x.split(PIECE, -1):
        size = here.shape[-1]
        before = (top[..., None, :] >= here[..., None]).sum(-1)
        inside = ((here[..., None, :] >= here[..., None]) & earlier[:size, :size]).sum(-1)
        found.append(before + inside)
        top = torch.cat([top, here], -1).topk(most, -1).values
    return torch.cat(found, -1)


def _running(v: Tensor, *, mean: bool) -> Tensor:
    """In float32 or wider, as half precision cannot count beyond 256, and back in the values' own dtype."""
    wide = torch.promote_types(v.dtype, torch.float32)
    total = v.to(wide).cumsum(2)
    return (total / torch.arange(1, v.shape[2] + 1, device=v.device)[:, None] if mean else total).to(v.dtype)
