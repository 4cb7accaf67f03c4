"""What a user hands over, in the form that a question needs."""

from seqloom.app.data import PIECE, in_pieces
from seqloom.data.sequences import Sequences


def test_one_long_sequence_is_cut_into_pieces_that_say_where_they_lie() -> None:
    genome = "ACGT" * PIECE
    pieces = in_pieces(Sequences.of([genome], ids=["chr1"]))
    assert pieces.ids == [f"chr1:{PIECE * k + 1}-{PIECE * (k + 1)}" for k in range(4)]
    assert "".join(pieces.table["sequence"].to_pylist()) == genome
    assert (pieces.opens.tolist(), pieces.closes.tolist()) == ([True, False, False, False], [False, False, False, True])


def test_the_last_piece_takes_the_rest() -> None:
    pieces = in_pieces(Sequences.of(["A" * (2 * PIECE + 7)], ids=["x"]))
    assert pieces.lengths.tolist() == [PIECE, PIECE + 7]
    assert pieces.ids[-1] == f"x:{PIECE + 1}-{2 * PIECE + 7}"


def test_short_ones_and_several_stay_as_they_are() -> None:
    for given in ["A" * (2 * PIECE - 1)], ["A" * 2 * PIECE, "C"]:
        whole = Sequences.of(given)
        assert in_pieces(whole) is whole
