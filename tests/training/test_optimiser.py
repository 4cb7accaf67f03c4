"""Which parameters decay, and which rates are capped."""

import torch
from torch import nn

from seqloom.mixers._base import ParamGroup
from seqloom.training.optimiser import AdamW


class Part(nn.Module):
    def __init__(self, cap: float | None = 1e-3) -> None:
        super().__init__()
        self.cap = cap
        self.step_size = nn.Parameter(torch.zeros(3, 2))
        self.linear = nn.Linear(2, 2)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(("step_size",), lr=self.cap, weight_decay=0.0)]


def settings(lr: float, cap: float | None = 1e-3) -> dict[str, tuple[float, float]]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"table": nn.Embedding(4, 2), "part": Part(cap), "norm": nn.LayerNorm(2)})
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


def test_a_cap_of_zero_is_a_cap_and_none_is_none() -> None:
    assert settings(1e-2, cap=0.0)["part.step_size"][0] == 0.0
    assert settings(1e-2, cap=None)["part.step_size"][0] == 1e-2


def test_options_reach_torch() -> None:
    optimiser = AdamW(lr=0.1, weight_decay=0.3, betas=(0.5, 0.7), eps=0.01).build(nn.Linear(2, 2))
    assert (optimiser.defaults["betas"], optimiser.defaults["eps"]) == ((0.5, 0.7), 0.01)
    assert sorted(group["weight_decay"] for group in optimiser.param_groups) == [0.0, 0.3]
    assert {group["peak"] for group in optimiser.param_groups} == {0.1}
