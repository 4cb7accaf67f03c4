from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.state import State, States


@dataclass(frozen=True, kw_only=True)
class Cell(State):
    h_BD: Tensor
    step_B: Tensor


def cell(*values: float, length: int = 0) -> Cell:
    """Rows whose vectors are filled with the given values."""
    h_BD = torch.tensor(values)[:, None].expand(-1, 3).clone()
    return Cell(h_BD=h_BD, step_B=torch.arange(len(values)), length_B=torch.full((len(values),), length))


def recorded() -> Cell:
    """Two rows with states at lengths 1, 2 and 4; now at 5."""
    points = [cell(10.0 + n, 20.0 + n, length=n) for n in (1, 2, 4)]
    return cell(15.0, 25.0, length=5).recorded(points)


def model_states(layer: State) -> States:
    extras = {"encoder": torch.arange(4.0).view(2, 2), "inner": cell(7.0, 8.0)}
    return States(length_B=layer.length_B, layers={"0": layer}, extras=extras)


def test_select_reorders_repeats_and_drops_rows_everywhere() -> None:
    picked = model_states(recorded()).select(torch.tensor([1, 1, 0]))
    assert picked.layers["0"].h_BD[:, 0].tolist() == [25.0, 25.0, 15.0]
    assert picked.layers["0"].trail.tensors["h_BD"][:, :, 0].tolist() == [[21, 22, 24], [21, 22, 24], [11, 12, 14]]
    assert picked.extras["encoder"].tolist() == [[2.0, 3.0], [2.0, 3.0], [0.0, 1.0]]
    assert picked.extras["inner"].h_BD[:, 0].tolist() == [8.0, 8.0, 7.0]
    assert picked.batch == 3


def test_fork_shares_no_memory() -> None:
    state = model_states(recorded())
    copy = state.fork()
    state.layers["0"].h_BD.zero_()
    state.extras["inner"].h_BD.zero_()
    state.layers["0"].trail.tensors["h_BD"].zero_()
    assert copy.layers["0"].h_BD[:, 0].tolist() == [15.0, 25.0]
    assert copy.extras["inner"].h_BD[:, 0].tolist() == [7.0, 8.0]
    assert copy.layers["0"].trail.tensors["h_BD"].abs().sum() > 0


def test_dtype_applies_to_floating_tensors_alone() -> None:
    moved = recorded().to("cpu", torch.float64)
    assert moved.h_BD.dtype == moved.trail.tensors["h_BD"].dtype == torch.float64
    assert moved.step_B.dtype == moved.length_B.dtype == torch.int64
    assert cell(1.0).to(torch.bfloat16).h_BD.dtype == torch.bfloat16


def test_detach_cuts_the_gradient() -> None:
    h_BD = torch.ones(1, 3, requires_grad=True)
    assert not replace(cell(1.0), h_BD=h_BD * 2).detach().h_BD.requires_grad


def test_bytes_count_every_tensor_but_the_trail() -> None:
    one = 2 * 3 * 4 + 2 * 8 + 2 * 8  # h, step, length
    assert recorded().nbytes == one
    assert model_states(recorded()).nbytes == one + 4 * 4 + one + 2 * 8


def test_rollback_takes_each_row_to_its_own_point() -> None:
    back = recorded().rollback(torch.tensor([4, 1]))
    assert back.h_BD[:, 0].tolist() == [11.0, 24.0]
    assert back.length_B.tolist() == [1, 4]
    assert back.trail is None


def test_a_row_can_stay_at_its_last_state() -> None:
    back = recorded().rollback(torch.tensor([0, 3]))
    assert back.h_BD[:, 0].tolist() == [15.0, 22.0]
    assert back.length_B.tolist() == [5, 2]


def test_packed_rows_go_back_within_their_last_segment() -> None:
    points = [cell(1.0, length=2), cell(2.0, length=1), cell(3.0, length=2)]  # a new segment began after the first
    state = cell(4.0, length=3).recorded(points)
    assert state.rollback(torch.tensor([1])).h_BD[0, 0] == 3.0


def test_a_point_that_was_not_recorded_is_named() -> None:
    with pytest.raises(ConfigError, match=r"row 1 was not recorded at length 3; its trail has \[1, 2, 4, 5\]"):
        recorded().rollback(torch.tensor([1, 2]))


def test_without_a_trail_only_nothing_can_be_forgotten() -> None:
    state = cell(1.0, 2.0, length=3)
    assert state.rollback(torch.tensor([0, 0])) is state
    with pytest.raises(ConfigError, match="states_at"):
        state.rollback(torch.tensor([0, 1]))


def test_layers_of_a_model_go_back_together() -> None:
    back = model_states(recorded()).rollback(torch.tensor([1, 3]))
    assert back.length_B.tolist() == back.layers["0"].length_B.tolist() == [4, 2]
    assert back.layers["0"].h_BD[:, 0].tolist() == [14.0, 22.0]


def test_map_reaches_tuples() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Stack(State):
        levels: tuple[Tensor, ...]

    state = Stack(levels=(torch.ones(2), torch.ones(2, 5)), length_B=torch.zeros(2))
    assert [len(level) for level in state.select(torch.tensor([0])).levels] == [1, 1]
    assert state.nbytes == 4 * (2 + 10 + 2)


@dataclass(frozen=True, kw_only=True)
class Nest(State):
    """A state with others inside, as wrapping mixers have."""

    inner: Cell
    levels: tuple[Tensor, ...]
    by_name: dict[str, Tensor]
    scale: int = 2


def nest(value: float, length: int) -> Nest:
    inner = cell(value, value + 100, length=length)
    tensors = (torch.full((2, 1), value), torch.full((2, 4), -value))
    return Nest(inner=inner, levels=tensors, by_name={"a": torch.full((2,), 10 * value)}, length_B=inner.length_B)


def test_nested_states_tuples_and_dicts_go_back_too() -> None:
    state = nest(3.0, 3).recorded([nest(1.0, 1), nest(2.0, 2)])
    for whole in (state, state.select(torch.tensor([0, 1])), state.fork()):
        back = whole.rollback(torch.tensor([2, 0]))
        assert back.length_B.tolist() == back.inner.length_B.tolist() == [1, 3]
        assert back.inner.h_BD[:, 0].tolist() == [1.0, 103.0]
        assert [level[:, 0].tolist() for level in back.levels] == [[1.0, 3.0], [-1.0, -3.0]]
        assert back.by_name["a"].tolist() == [10.0, 30.0]
        assert (back.scale, back.trail, back.inner.trail) == (2, None, None)
    assert state.nbytes == nest(3.0, 3).nbytes


def test_rows_of_two_states_make_one() -> None:
    mixed = nest(1.0, 1).where(torch.tensor([True, False]), nest(5.0, 7))
    assert mixed.length_B.tolist() == mixed.inner.length_B.tolist() == [1, 7]
    assert mixed.inner.h_BD[:, 0].tolist() == [1.0, 105.0]
    assert [level[:, 0].tolist() for level in mixed.levels] == [[1.0, 5.0], [-1.0, -5.0]]
    assert mixed.by_name["a"].tolist() == [10.0, 50.0]
