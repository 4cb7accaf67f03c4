"""A normal distribution for every value.

    m = around + W_m h        log s = 7 tanh(W_s h / 7)        loss = -log N(y; m, s)

Shapes: B batch, T time, D width, P channels; K = 2 parameters: mean and logarithm of the scale.
Source: Nix and Weigend, "Estimating the mean and variance of the target probability distribution", 1994.
"""

import math

import torch
from torch import Tensor

from seqloom.layers._head import BOUND, Head

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Gaussian(Head):
    """Mean and scale of the next value; the loss is its negative log-likelihood."""

    parameters_each = 2

    def placed(self, raw_BTPK: Tensor, around_BTP: Tensor | None) -> Tensor:
        mean, log_scale = raw_BTPK.unbind(-1)
        mean = mean if around_BTP is None else mean + around_BTP.to(mean.dtype)
        return torch.stack([mean, BOUND * torch.tanh(log_scale / BOUND)], -1)

    def loss(self, parameters_K: Tensor, y: Tensor) -> Tensor:
        return -self.log_prob(parameters_K, y)

    def log_prob(self, parameters_K: Tensor, y: Tensor) -> Tensor:
        mean, log_scale = parameters_K.unbind(-1)
        return -0.5 * ((y - mean) * torch.exp(-log_scale)).square() - log_scale - _HALF_LOG_TAU

    def quantile(self, parameters_K: Tensor, p: Tensor) -> Tensor:
        mean, log_scale = parameters_K.unbind(-1)
        return mean + torch.exp(log_scale) * torch.special.ndtri(p)

    def mean(self, parameters_K: Tensor) -> Tensor:
        return parameters_K[..., 0]
