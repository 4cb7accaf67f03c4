"""A distribution by its quantiles, of whatever shape the data have.

    q_k = the value below which the share p_k = k / (K + 1) lies,  k = 1 .. K, rising by construction
    loss = 2 / K sum_k max(p_k (y - q_k), (p_k - 1) (y - q_k))

The loss tends to the continuous ranked probability score as K grows. Between two quantiles the density is even, beyond
the outer ones it falls off exponentially and joins without a step, so that the likelihood is proper, too.
Shapes: B batch, T time, D width, P channels, K quantiles.
Source: Koenker and Bassett, "Regression quantiles", 1978; Gneiting and Raftery, "Strictly proper scoring rules,
prediction, and estimation", 2007, section 4.2, for the score.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from seqloom.core.errors import ConfigError
from seqloom.layers._head import BOUND, Head

_LEAST = float(torch.exp(torch.tensor(-BOUND)))
"""Smallest distance of two quantiles, so that a density stays finite."""


class Quantiles(Head):
    """Quantiles of the next value; the loss is the mean pinball loss, twice."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Head.Config):
        """How fine the distribution is."""

        count: int = 19
        """Quantiles; an odd number, so that the median is one of them."""

    def __init__(self, width: int, channels: int, config: Config | None = None) -> None:
        """ConfigError for an even or too small number of quantiles."""
        config = config or Quantiles.Config()
        if config.count < 3 or config.count % 2 == 0:
            raise ConfigError(f"the number of quantiles is odd and at least 3, not {config.count}")
        self.parameters_each = config.count
        super().__init__(width, channels, config)

    @cached_property
    def levels_K(self) -> Tensor:
        """Shares p_k, float32; on the CPU."""
        count = self.config.count
        return torch.arange(1, count + 1) / (count + 1)

    def placed(self, raw_BTPK: Tensor, around_BTP: Tensor | None) -> Tensor:
        half = self.config.count // 2
        middle = raw_BTPK[..., half : half + 1]
        if around_BTP is not None:
            middle = middle + around_BTP[..., None].to(middle.dtype)
        # at zero the quantiles are those of a spread of about one standard deviation
        step = softplus(raw_BTPK - 1.7) + _LEAST
        below = middle - step[..., :half].flip(-1).cumsum(-1).flip(-1)
        above = middle + step[..., half + 1 :].cumsum(-1)
        return torch.cat([below, middle, above], -1)

    def loss(self, parameters_K: Tensor, y: Tensor) -> Tensor:
        p_K = self.levels_K.to(parameters_K)
        far = y[..., None] - parameters_K
        return 2 * torch.maximum(p_K * far, (p_K - 1) * far).mean(-1)

    def log_prob(self, parameters_K: Tensor, y: Tensor) -> Tensor:
        each = 1 / (self.config.count + 1)
        log_density = torch.log(each / (parameters_K[..., 1:] - parameters_K[..., :-1]))
        at = torch.searchsorted(parameters_K.detach().contiguous(), y[..., None].contiguous())[
            ..., 0
        ]  # quantiles below y
        inside = log_density.gather(-1, (at - 1).clamp(0, self.config.count - 2)[..., None])[..., 0]
        # a tail of mass `each` and density d at its edge falls off with the rate d / each
        outside = torch.where(at == 0, parameters_K[..., 0] - y, y - parameters_K[..., -1]).clamp_min(0)
        return inside - outside * torch.exp(inside) / each

    def quantile(self, parameters_K: Tensor, p: Tensor) -> Tensor:
        count = self.config.count
        p = torch.as_tensor(p, dtype=parameters_K.dtype, device=parameters_K.device).expand(parameters_K.shape[:-1])
        place = (p * (count + 1)).clamp(1e-6, count + 1 - 1e-6)
        k = place.floor().long().clamp(1, count - 1)  # the bin above quantile k
        low, high = (parameters_K.gather(-1, (k - 1 + shift)[..., None])[..., 0] for shift in (0, 1))
        width = high - low
        between = low + (place - k) * width
        lower = parameters_K[..., 0] + (parameters_K[..., 1] - parameters_K[..., 0]) * place.clamp_max(1).log()
        rest = (count + 1 - place).clamp_max(1)
        upper = parameters_K[..., -1] - (parameters_K[..., -1] - parameters_K[..., -2]) * rest.log()
        return torch.where(place < 1, lower, torch.where(place > count, upper, between))

    def mean(self, parameters_K: Tensor) -> Tensor:
        return parameters_K[..., self.config.count // 2]
