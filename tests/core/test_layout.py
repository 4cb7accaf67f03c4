import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout, fold, roll, segments, unfold


def starts(*rows: str) -> torch.Tensor:
    """'|' where a segment begins."""
    return torch.tensor([[letter == "|" for letter in row] for row in rows])


def test_valid_positions_on_either_side() -> None:
    lengths_B = torch.tensor([0, 2, 4])
    right = Layout(lengths_B=lengths_B).valid_BT(4)
    left = Layout(lengths_B=lengths_B, side="left").valid_BT(4)
    assert right.int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert left.int().tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]]
    assert PLAIN.valid_BT(4) is None


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ConfigError, match="'middle'"):
        Layout(side="middle")


def test_used_names_what_asks_for_something() -> None:
    assert PLAIN.used() == ()
    assert PLAIN.plain
    asks = Layout(lengths_B=torch.tensor([1]), states_at=(1,))
    assert asks.used() == ("lengths_B", "states_at")
    assert not asks.plain
    assert Layout(states_at=(1,)).plain


def test_segments_are_numbered_from_what_continues() -> None:
    assert Layout(starts_BT=starts("..|.|", "|...|")).segments_BT().tolist() == [[0, 0, 1, 1, 2], [1, 1, 1, 1, 2]]
    assert PLAIN.segments_BT() is None


def test_positions_count_on_and_anew_in_each_segment() -> None:
    before_B = torch.tensor([3, 3])
    assert PLAIN.where_BT(3, before_B).tolist() == [[3, 4, 5]] * 2
    packed = Layout(starts_BT=starts("..|.|", "|...|"))
    assert packed.where_BT(5, before_B).tolist() == [[3, 4, 0, 1, 0], [0, 1, 2, 3, 0]]
    left = Layout(lengths_B=torch.tensor([2, 4]), side="left")
    assert left.where_BT(4, before_B)[0, 2:].tolist() == [3, 4]
    assert left.where_BT(4, before_B)[1].tolist() == [3, 4, 5, 6]
    given_BT = torch.tensor([[9, 9]])
    assert Layout(positions_BT=given_BT).where_BT(2, torch.tensor([3])) is given_BT


def test_trees_have_ancestors_and_depths() -> None:
    layout = Layout(parents_BT=torch.tensor([[-1, 0, 0, 2, -1]]))
    assert layout.ancestors_BTT().int().tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    ]
    assert layout.depth_BT().tolist() == [[0, 1, 1, 2, 0]]
    assert layout.where_BT(5, torch.tensor([10])).tolist() == [[10, 11, 11, 12, 10]]
    with pytest.raises(ConfigError, match="no tree"):
        PLAIN.ancestors_BTT()


@pytest.mark.parametrize(
    ("layout", "want"),
    [
        (PLAIN, [9, 6]),
        (Layout(lengths_B=torch.tensor([4, 0])), [8, 1]),
        (Layout(starts_BT=starts("..|..", ".....")), [3, 6]),
        (Layout(starts_BT=starts("..|..", "..|.|"), lengths_B=torch.tensor([4, 4])), [2, 2]),
        (Layout(starts_BT=starts("....|", "|...."), lengths_B=torch.tensor([4, 0])), [8, 1]),
    ],
)
def test_advance_counts_the_last_segment(layout: Layout, want: list[int]) -> None:
    before_B = torch.tensor([4, 1])
    assert layout.advance(before_B, 5).tolist() == want


def test_cut_keeps_the_rest_of_each_row() -> None:
    layout = Layout(lengths_B=torch.tensor([1, 3, 5]), starts_BT=starts(".....", "|.|..", "....|"), states_at=(2,))
    piece = layout.cut(2, 4)
    assert piece.lengths_B.tolist() == [0, 1, 2]
    assert piece.starts_BT.int().tolist() == [[0, 0], [1, 0], [0, 0]]
    assert piece.states_at is None
    with pytest.raises(ConfigError, match="padded to the right"):
        Layout(lengths_B=torch.tensor([1]), side="left").cut(0, 1)


def test_segments_lie_where_the_starts_say() -> None:
    at = segments(Layout(starts_BT=starts("|..|.", "..|..", "....."), lengths_B=torch.tensor([5, 4, 0])), 5)
    assert at.row_S.tolist() == [0, 0, 1, 1, 2]
    assert at.begin_S.tolist() == [0, 3, 0, 2, 0]
    assert at.lengths_S.tolist() == [3, 2, 2, 2, 0]
    assert at.continues_S.tolist() == [False, False, True, False, True]
    assert at.last_B.tolist() == [1, 3, 4]
    with pytest.raises(ConfigError, match="not packed"):
        segments(PLAIN, 5)


rows = st.integers(1, 9).flatmap(
    lambda length: st.lists(
        st.tuples(st.lists(st.booleans(), min_size=length, max_size=length), st.integers(0, length)),
        min_size=1,
        max_size=4,
    )
)


@given(rows)
def test_fold_undoes_unfold_and_each_segment_is_a_row(drawn: list[tuple[list[bool], int]]) -> None:
    starts_BT = torch.tensor([row for row, _ in drawn])
    lengths_B = torch.tensor([length for _, length in drawn])
    layout = Layout(starts_BT=starts_BT, lengths_B=lengths_B)
    rows, length = starts_BT.shape
    x_BTD = 1.0 + torch.arange(rows * length * 2).view(rows, length, 2)
    at = segments(layout, length)
    x_SLD = unfold(x_BTD, at)
    valid_BT = layout.valid_BT(length)
    assert torch.equal(fold(x_SLD, at, (rows, length)), x_BTD * valid_BT[..., None])
    expected = []
    for row in range(rows):  # by brute force
        edges = sorted({0, *(t for t in range(int(lengths_B[row])) if starts_BT[row, t])})
        stops = [*edges[1:], int(lengths_B[row])]
        expected += [x_BTD[row, a:b].tolist() for a, b in zip(edges, stops, strict=True)]
    assert [row[:size].tolist() for row, size in zip(x_SLD, at.lengths_S.tolist(), strict=True)] == expected
    assert x_SLD.sum() == (x_BTD * valid_BT[..., None]).sum()


def test_roll_turns_left_padding_into_right_padding_and_back() -> None:
    x_BT = torch.tensor([[0, 0, 1, 2], [3, 4, 5, 6], [0, 0, 0, 0]])
    shift_B = 4 - torch.tensor([2, 4, 0])
    right_BT = roll(x_BT, shift_B)
    assert right_BT.tolist() == [[1, 2, 0, 0], [3, 4, 5, 6], [0, 0, 0, 0]]
    assert torch.equal(roll(right_BT, -shift_B), x_BT)
    assert roll(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long)).shape == (2, 0)


def test_segments_of_rows_padded_to_the_left_are_refused() -> None:
    with pytest.raises(ConfigError, match="padded to the right"):
        segments(Layout(starts_BT=starts("|-"), lengths_B=torch.tensor([1]), side="left"), 2)
