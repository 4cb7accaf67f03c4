"""Where an optimiser's tensors go when they come back."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seqloom.training._resume import moments, set_moments


@pytest.mark.parametrize(("fused", "device"), [(True, "meta"), (False, "cpu"), (None, "cpu")])
def test_a_step_count_lies_where_the_optimiser_reads_it(fused: bool | None, device: str) -> None:
    model = nn.Linear(2, 2, device="meta")
    optimiser = SimpleNamespace(defaults={"fused": fused}, state={p: {} for p in model.parameters()})
    set_moments(optimiser, model, {"step:weight": torch.ones(()), "exp_avg:weight": torch.ones(2, 2)})
    assert optimiser.state[model.weight]["step"].device.type == device
    assert optimiser.state[model.weight]["exp_avg"].is_meta


def test_frozen_parameters_get_none_and_nothing_is_shared() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimiser = torch.optim.AdamW([model.weight])
    given = {"step:weight": torch.ones(()), "exp_avg:weight": torch.ones(2, 2), "exp_avg:bias": torch.ones(2)}
    set_moments(optimiser, model, given)
    assert sorted(moments(optimiser, model)) == ["exp_avg:weight", "step:weight"]
    optimiser.state[model.weight]["exp_avg"].zero_()
    assert given["exp_avg:weight"].sum() == 4
