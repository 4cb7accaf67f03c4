"""What ``Mixer.forward`` does for every mixer."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from seqloom.core import discovery
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.recurrent.gru import GRU


def starting_at(column: int, length: int) -> Layout:
    starts_BT = torch.zeros(1, length, dtype=torch.bool)
    starts_BT[0, column] = True
    return Layout(starts_BT=starts_BT)


def recording() -> list[str]:
    kinds: dict[str, Any] = {name: discovery.get("mixers", name) for name in discovery.names("mixers")}
    return [name for name, kind in kinds.items() if kind.Config().traits().rollback == "recorded"]


@pytest.mark.parametrize("name", recording())
def test_a_trail_ends_with_the_next_call(name: str) -> None:
    """Its points may belong to an earlier segment of a packed row, whose lengths come again."""
    kind: Any = discovery.get("mixers", name)
    mixer = kind(8).eval()
    x_BTD = torch.randn(1, 4, 8)
    _, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(states_at=(1, 2)))
    assert state.trail is not None
    _, state = mixer(x_BTD, state, layout=starting_at(1, 4))
    with pytest.raises(ConfigError, match="recorded"):
        state.rollback(torch.tensor([1]))


class Pair(Mixer):
    """Two GRUs, one inside the state of the other: a wrapping mixer."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        parts: tuple[BaseState, BaseState]

    @classmethod
    def traits(cls, config: Any) -> Traits:
        return Traits(causal="exact", step="constant")

    def __init__(self, width: int, config: Any = None) -> None:
        super().__init__(width, config)
        self.first, self.second = GRU(width), GRU(width)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        parts = (self.first.initial_state(batch), self.second.initial_state(batch))
        return self.State(parts=parts, length_B=self.no_length(batch))

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        one, two = (None, None) if state is None else state.parts
        y_BTD, one = self.first.mix(x_BTD, one, layout, None)
        y_BTD, two = self.second.mix(y_BTD, two, layout, None)
        if state is None:
            return y_BTD, None
        return y_BTD, replace(state, parts=(one, two), length_B=layout.advance(state.length_B, x_BTD.shape[1]))


def test_nested_states_are_recorded_and_go_back() -> None:
    torch.manual_seed(0)
    mixer, x_BTD = Pair(4).eval(), torch.randn(2, 5, 4)
    _, state = mixer(x_BTD, mixer.initial_state(2), layout=Layout(states_at=(2, 4)))
    back = state.rollback(torch.tensor([3, 1]))
    after, _ = mixer(x_BTD[:, :1], back)
    for row, length in enumerate((2, 4)):
        _, fresh = mixer(x_BTD[row : row + 1, :length], mixer.initial_state(1))
        torch.testing.assert_close(after[row : row + 1], mixer(x_BTD[row : row + 1, :1], fresh)[0])


def test_nested_states_are_forgotten_where_a_segment_begins() -> None:
    torch.manual_seed(0)
    mixer, x_BTD = Pair(4).eval(), torch.randn(1, 6, 4)
    _, state = mixer(x_BTD[:, :2], mixer.initial_state(1))
    y_BTD, after = mixer(x_BTD[:, 2:], state, layout=starting_at(2, 4))
    torch.testing.assert_close(y_BTD[:, :2], mixer(x_BTD[:, :4])[0][:, 2:])
    alone, last = mixer(x_BTD[:, 4:], mixer.initial_state(1))
    torch.testing.assert_close(y_BTD[:, 2:], alone)
    torch.testing.assert_close(after.parts[1].h_BH, last.parts[1].h_BH)
    assert after.length_B.tolist() == after.parts[0].length_B.tolist() == [2]
