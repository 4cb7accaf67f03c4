"""What is kept while parameters stay, and what is not."""

import threading

import pytest
import torch
from torch import nn

from seqloom.core import discovery
from seqloom.core.steady import Steady, derived


class Doubled(nn.Module):
    """Counts how often its derived value is made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.made = nn.Parameter(torch.ones(2)), 0

    @derived
    def value(self, times: int = 2) -> torch.Tensor:
        self.made += 1
        return self.weight * times


def test_a_value_is_made_once_inside_and_every_time_outside() -> None:
    module, steady = Doubled(), Steady()
    with torch.no_grad():
        for _ in range(3):
            with steady:
                kept = module.value()
        assert module.made == 1
        assert module.value() is not kept
        assert module.made == 2


def test_objects_arguments_and_sessions_are_kept_apart() -> None:
    first, second, steady = Doubled(), Doubled(), Steady()
    with torch.no_grad(), steady:
        assert first.value(3).tolist() == [3, 3]
        assert first.value().tolist() == [2, 2]
        second.weight.mul_(5)
        assert second.value().tolist() == [10, 10]
    with torch.no_grad(), Steady():
        first.weight.mul_(2)
        assert first.value().tolist() == [4, 4]


def test_a_gradient_is_never_lost() -> None:
    module = Doubled()
    with Steady():
        with torch.no_grad():
            module.value()
        module.value().sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.tolist() == [2, 2]


def test_another_thread_sees_nothing_of_it() -> None:
    module, seen = Doubled(), []
    with torch.no_grad(), Steady():
        module.value()

        def other() -> None:
            with torch.no_grad():
                module.value()
            seen.append(module.made)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [2]


@pytest.mark.parametrize("name", discovery.names("mixers"))
def test_steps_are_the_same_with_what_is_kept(name: str) -> None:
    kind = discovery.get("mixers", name)
    mixer, steady = kind(8).eval(), Steady()
    if mixer.can.step == "none":
        pytest.skip("it has no step")
    x_BTD = torch.randn(2, 5, 8)
    with torch.no_grad():
        plain, kept = mixer.initial_state(2), mixer.initial_state(2)
        for x_BD in x_BTD.unbind(1):
            want_BTD, plain = mixer(x_BD[:, None], plain)
            with steady:
                got_BTD, kept = mixer(x_BD[:, None], kept)
            assert torch.equal(got_BTD, want_BTD)
