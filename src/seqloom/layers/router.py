"""A linear router: which of several memories or experts a position goes to, and with which weight.

    p = softmax(W x)          chosen = the ``top`` largest of p          w_m = p_m / sum of the chosen p

All in float32 or wider. Equal probabilities are told apart by their number, the smaller one first. The balance loss

    M sum_m f_m P_m           f_m = choices of m a position        P_m = mean of p_m

is ``top`` where all are used alike and grows with what a few of them get; its gradient flows through P alone.

Shapes: B batch, T time, D width, M outlets, K = top choices.
Source: Shazeer et al., "Outrageously large neural networks", 2017, arXiv:1701.06538, section 2.1; Fedus, Zoph and
Shazeer, "Switch transformers", 2021, arXiv:2101.03961, section 2.2 (balance); Du et al., "MoM", 2025,
arXiv:2502.13685, section 3.1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqloom.core import auxiliary
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.layers.linear import Linear


class _Choice(NamedTuple):
    """Choices of every position; those of pads are -1, with weight 0."""

    chosen_BTK: Tensor
    weight_BTK: Tensor


class Router(Component, nn.Module):
    """Softmax over outlets, the largest kept."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """How many there are and how many are taken."""

        outlets: int = 4
        """Memories or experts."""
        top: int = 2
        """Chosen for each position."""
        balance: float = 0.01
        """Weight of the balance loss in training; 0 = none."""

    def __init__(self, width: int, config: Config | None = None) -> None:
        """ConfigError where more are to be chosen than there are."""
        super().__init__()
        self.config = config or self.Config()
        if not 1 <= self.config.top <= self.config.outlets:
            raise ConfigError(f"a router chooses top = {self.config.top} of {self.config.outlets} outlets")
        if self.config.balance < 0:
            raise ConfigError(f"balance must not be negative, as {self.config.balance} is")
        self.map = Linear(width, self.config.outlets, bias=False)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> _Choice:
        """Choose; in training the balance loss goes to whoever collects (``core.auxiliary``)."""
        with torch.autocast(x_BTD.device.type, enabled=False):
            wide = torch.promote_types(x_BTD.dtype, torch.float32)
            p_BTM = torch.softmax(x_BTD.to(wide) @ self.map.weight.to(wide).T, -1)
            order_BTM = p_BTM.argsort(dim=-1, descending=True, stable=True)
            chosen_BTK = order_BTM[..., : self.config.top]
            weight_BTK = p_BTM.gather(2, chosen_BTK)
            weight_BTK = weight_BTK / weight_BTK.sum(-1, keepdim=True)
            if self.training and self.config.balance and auxiliary.wanted():
                auxiliary.add("balance", self.config.balance * router_balance(p_BTM, chosen_BTK, valid_BT))
        if valid_BT is not None:
            pads_BT1 = ~valid_BT[..., None]
            chosen_BTK, weight_BTK = chosen_BTK.masked_fill(pads_BT1, -1), weight_BTK.masked_fill(pads_BT1, 0)
        return _Choice(chosen_BTK, weight_BTK)


def router_balance(p_BTM: Tensor, chosen_BTK: Tensor, valid_BT: Tensor | None) -> Tensor:
    """The balance loss of one router; pads count for nothing."""
    outlets = p_BTM.shape[-1]
    valid_BT = torch.ones(p_BTM.shape[:2], dtype=torch.bool, device=p_BTM.device) if valid_BT is None else valid_BT
    count = valid_BT.sum().clamp_min(1)
    hits_BTM = torch.zeros_like(p_BTM).scatter(2, chosen_BTK, 1.0)
    share_M = (hits_BTM * valid_BT[..., None]).sum((0, 1)) / count
    mean_M = (p_BTM * valid_BT[..., None]).sum((0, 1)) / count
    return outlets * (share_M.detach() * mean_M).sum()
