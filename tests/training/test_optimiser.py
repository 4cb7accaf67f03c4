"""Which parameters decay, and which rates are capped."""

import torch
from torch import nn

from seqloom.mixers._base import ParamGroup
from seqloom.training.optimiser import AdamW


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step_size = nn.Parameter(torch.zeros(3, 2))
        self.linear = nn.Linear(2, 2)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(("step_size",), lr=1e-3, weight_decay=0.0)]


def settings(lr: float) -> dict[str, tuple[float, float]]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"table": nn.Embedding(4, 2), "part": Part(), "norm": nn.LayerNorm(2)})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimiser = AdamW(lr=lr, weight_decay=0.1).build(model)
    return {names[id(p)]: (g["peak"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}


def test_every_parameter_is_in_exactly_one_group() -> None:
    assert len(settings(1e-2)) == 6


def test_matrices_decay_and_nothing_else_does() -> None:
    decaying = {name for name, (_, decay) in settings(1e-2).items() if decay}
    assert decaying == {"part.linear.weight"}


def test_a_mixers_cap_lowers_a_rate_and_never_raises_it() -> None:
    assert settings(1e-2)["part.step_size"][0] == 1e-3
    assert settings(1e-4)["part.step_size"][0] == 1e-4
