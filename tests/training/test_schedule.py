"""The learning rate's shape against torch's own schedulers."""

import pytest
import torch

from seqloom.training.schedule import Schedule


def test_cosine_part_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    own = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=90, eta_min=0.02)
    schedule = Schedule(warmup=0.1, floor=0.02)
    for step in range(10, 100):
        assert schedule.factor(step, 100) == pytest.approx(own.get_last_lr()[0], abs=1e-9)
        optimiser.step()
        own.step()


def test_warm_up_is_linear_and_never_zero() -> None:
    factors = [Schedule(warmup=0.1).factor(step, 100) for step in range(10)]
    assert factors == pytest.approx([(k + 1) / 10 for k in range(10)])


def test_a_run_of_one_step_has_the_full_rate() -> None:
    assert Schedule().factor(0, 1) == 1.0


def test_warm_up_and_floor_are_those_that_were_asked_for() -> None:
    factors = [Schedule(warmup=0.5, floor=0.4).factor(step, 4) for step in range(4)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.7])
