"""How the rows of a batch lie in time and over devices: the only mask or mode argument there is.

    lengths, side       rows of different lengths, padded to the right or to the left
    starts              several segments packed into one row; True where one begins
    positions           positions that differ from the column's number
    parents             a tree of candidate continuations (verification of several drafts in one call)
    parts               parts of a prompt that do not see each other (order-free sets)
    states_at           where states are wanted back
    exchange            the neighbours along time, injected by parallel/

Shapes: B batch, T columns of this call, S segments. A mixer that cannot honour a field refuses it by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Exchange


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One description for training, prefill, decoding, packing, trees and sequence parallelism."""

    lengths_B: Tensor | None = None
    """Valid columns of each row; None = all."""
    side: Literal["right", "left"] = "right"
    """On which side the padding lies."""
    starts_BT: Tensor | None = None
    """True at the first position of each packed segment. A row whose first column is no start continues its state."""
    positions_BT: Tensor | None = None
    """Position of each token for position encodings; None = counted from the state's length, anew in each segment."""
    parents_BT: Tensor | None = None
    """Column of each token's parent in this call, -1 = the state's last token: a token sees its ancestors alone."""
    parts_BT: Tensor | None = None
    """0 = ordinary; tokens of different parts of one set do not see each other. ``part(set, number)`` makes the ids;
    plain numbers 1, 2, ... are the parts of a single set."""
    states_at: tuple[int, ...] | None = None
    """Record the state after these numbers of columns of this call (0..T), beside the last one; with padding on
    the left, columns are counted from each row's first valid one."""
    exchange: Exchange | None = None
    """Neighbours along time; None = the whole sequence is here."""

    def __post_init__(self) -> None:
        """A side without lengths means nothing."""
        if self.side not in ("right", "left"):
            raise ConfigError(f"side is 'right' or 'left', not {self.side!r}")

    @property
    def plain(self) -> bool:
        """True where every column is an ordinary position of one segment."""
        return self.lengths_B is None and self.starts_BT is None and self.parents_BT is None and self.parts_BT is None

    def used(self) -> tuple[str, ...]:
        """Names of the fields that ask for something."""
        fields = ("lengths_B", "starts_BT", "positions_BT", "parents_BT", "parts_BT", "states_at", "exchange")
        return tuple(name for name in fields if getattr(self, name) is not None)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in given.items() if isinstance(value, Tensor)}
        return replace(self, **changed) if changed else self

    def valid_BT(self, length: int) -> Tensor | None:
        """True at real positions, or None where all are."""
        if self.lengths_B is None:
            return None
        column_T = torch.arange(length, device=self.lengths_B.device)
        if self.side == "right":
            return column_T < self.lengths_B[:, None]
        return column_T >= length - self.lengths_B[:, None]

    def segments_BT(self) -> Tensor | None:
        """Number of each position's segment in its row, from 0 for what continues the state; None when not packed."""
        return None if self.starts_BT is None else self.starts_BT.long().cumsum(1)

    def where_BT(self, length: int, before_B: Tensor) -> Tensor:
        """Position of every column: given, or counted on from ``before_B`` and anew in each segment."""
        if self.positions_BT is not None:
            return self.positions_BT
        column_BT = torch.arange(length, device=before_B.device).expand(len(before_B), length)
        if self.parents_BT is not None:
            return before_B[:, None] + self.depth_BT()
        if self.lengths_B is not None and self.side == "left":
            column_BT = (column_BT - (length - self.lengths_B[:, None])).clamp_min(0)
        if self.starts_BT is None:
            return before_B[:, None] + column_BT
        begin_BT = torch.where(self.starts_BT, column_BT, -1).cummax(1).values
        return torch.where(begin_BT < 0, before_B[:, None] + column_BT, column_BT - begin_BT)

    def depth_BT(self) -> Tensor:
        """Distance of each tree token from the state's last token, from 0."""
        return self.ancestors_BTT().sum(2) - 1

    def ancestors_BTT(self) -> Tensor:
        """True where a column is the token itself or one of its ancestors."""
        if self.parents_BT is None:
            raise ConfigError("this layout holds no tree")
        length = self.parents_BT.shape[1]
        up_BT = self.parents_BT
        seen_BTT = torch.eye(length, dtype=torch.bool, device=up_BT.device).repeat(len(up_BT), 1, 1)
        for _ in range(length):
            if not bool((up_BT >= 0).any()):
                break
            column_BT1 = up_BT.clamp_min(0)[..., None]
            seen_BTT = seen_BTT.scatter(2, column_BT1, seen_BTT.gather(2, column_BT1) | (up_BT >= 0)[..., None])
            up_BT = torch.where(up_BT >= 0, self.parents_BT.gather(1, up_BT.clamp_min(0)), -1)
        return seen_BTT

    def advance(self, before_B: Tensor, length: int) -> Tensor:
        """Lengths of a state after this call: of the last segment where rows are packed."""
        step_B = torch.full_like(before_B, length) if self.lengths_B is None else self.lengths_B.to(before_B.dtype)
        if self.starts_BT is None:
            return before_B + step_B
        column_T = torch.arange(length, device=before_B.device)
        begin_B = (
            torch.where(self.starts_BT & (column_T < step_B[:, None]), column_T, -1).amax(1) if length else -step_B - 1
        )
        return torch.where(begin_B < 0, before_B + step_B, step_B - begin_B)

    def cut(self, start: int, stop: int) -> Self:
        """The layout of columns start..stop, right-padded rows only; records nothing."""
        if self.side == "left" and self.lengths_B is not None:
            raise ConfigError("only rows padded to the right can be cut")
        lengths_B = None if self.lengths_B is None else (self.lengths_B - start).clamp(0, stop - start)
        parts = {
            name: None if (value := getattr(self, name)) is None else value[:, start:stop]
            for name in ("starts_BT", "positions_BT", "parts_BT")
        }
        return replace(self, lengths_B=lengths_B, states_at=None, **parts)


PLAIN = Layout()
SET = 1 << 32  # ids below are parts of set 0: a number alone is enough where there is one set


def part(of_set: int, number: int) -> int:
    """The id of a part (from 1) of a set (from 0): a later set sees every part of an earlier one."""
    if not (0 <= of_set < 1 << 30 and 0 < number < SET):
        raise ConfigError(f"sets count from 0 and parts from 1, not {of_set} and {number}")
    return of_set * SET + number


def hidden(a: Tensor, b: Tensor) -> Tensor:
    """True where two part ids lie in different parts of the same set: they do not see each other."""
    return (a != 0) & (b != 0) & (a != b) & (a // SET == b // SET)


class Segments(NamedTuple):
    """Where the segments of packed rows lie: index tables between packed rows and one row a segment."""

    row_S: Tensor
    """The packed row of each segment."""
    begin_S: Tensor
    """Its first column."""
    lengths_S: Tensor
    """Its valid columns."""
    continues_S: Tensor
    """True where the segment goes on from the row's state."""
    last_B: Tensor
    """The last segment of each row, whose state the row keeps."""


def segments(layout: Layout, length: int) -> Segments:
    """Find the segments of packed, right-padded rows. Every row has at least one, an empty one if need be."""
    starts_BT = layout.starts_BT
    if starts_BT is None:
        raise ConfigError("this layout is not packed")
    if layout.side == "left" and layout.lengths_B is not None:
        raise ConfigError("segments are found in rows padded to the right")
    rows, device = len(starts_BT), starts_BT.device
    stop_B = torch.full((rows,), length, device=device) if layout.lengths_B is None else layout.lengths_B
    opens_BT = starts_BT & (torch.arange(length, device=device) < stop_B[:, None])
    continues_B = ~opens_BT[:, 0]  # the row's first segment goes on from its state (and may be empty)
    opens_BT = torch.cat([torch.ones_like(opens_BT[:, :1]), opens_BT[:, 1:]], 1)
    row_S, begin_S = opens_BT.nonzero(as_tuple=True)
    end_S = torch.cat([begin_S[1:], begin_S.new_zeros(1)])
    last_S = torch.cat([row_S[1:] != row_S[:-1], row_S.new_ones(1, dtype=torch.bool)])
    end_S = torch.where(last_S, stop_B[row_S], end_S)
    return Segments(
        row_S=row_S,
        begin_S=begin_S,
        lengths_S=(end_S - begin_S).clamp_min(0),
        continues_S=(begin_S == 0) & continues_B[row_S],
        last_B=last_S.nonzero().flatten(),
    )


def unfold(x_BTD: Tensor, at: Segments) -> Tensor:
    """Packed rows (B, T, ...) -> one right-padded row a segment (S, L, ...); pads are zero."""
    index_SL, valid_SL = _columns(at, x_BTD.shape[1])
    x_SLD = x_BTD[at.row_S[:, None], index_SL]
    return x_SLD.masked_fill(~valid_SL.view(*valid_SL.shape, *[1] * (x_SLD.ndim - 2)), 0)


def fold(y_SLD: Tensor, at: Segments, shape: tuple[int, int]) -> Tensor:
    """One row a segment -> packed rows (B, T, ...); the inverse of ``unfold``, pads are zero."""
    index_SL, valid_SL = _columns(at, shape[1])
    row_SL = at.row_S[:, None].expand_as(index_SL)
    y_BTD = y_SLD.new_zeros(*shape, *y_SLD.shape[2:])
    return y_BTD.index_put((row_SL[valid_SL], index_SL[valid_SL]), y_SLD[valid_SL])


def _columns(at: Segments, length: int) -> tuple[Tensor, Tensor]:
    longest = int(at.lengths_S.max()) if len(at.lengths_S) else 0
    column_L = torch.arange(longest, device=at.begin_S.device)
    return (at.begin_S[:, None] + column_L).clamp_max(max(length - 1, 0)), column_L < at.lengths_S[:, None]


def roll(x_BT: Tensor, shift_B: Tensor) -> Tensor:
    """Move each row's columns ``shift_B`` to the left, around the end: left padding becomes right padding."""
    length = x_BT.shape[1]
    column_BT = (torch.arange(length, device=x_BT.device) + shift_B[:, None]) % max(length, 1)
    return x_BT[torch.arange(len(x_BT), device=x_BT.device)[:, None], column_BT]
