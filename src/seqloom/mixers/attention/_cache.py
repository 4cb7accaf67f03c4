"""Key-value cache: the keys and values of all earlier positions of each row, in their order.

Slot l of row b holds position l of that row, so going back is a shorter length and nothing else. Rows may have
different lengths; as long as they agree (``even``) every question about them is answered without asking the device.

Shapes: B batch, G key heads, L slots, K head width, T new positions, R kept columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State

LEAST = 16


@dataclass(frozen=True, kw_only=True)
class Cache(State):
    """Keys and values (B, G, L, K); slots at and beyond a row's length hold nothing of meaning."""

    in_place: ClassVar[bool] = True

    k_BGLK: Tensor
    v_BGLK: Tensor
    parts_BL: Tensor | None = None
    """Part of the prompt that each slot belongs to, once a layout has named parts."""
    filled: int = 0
    """No row is longer than this."""
    even: bool = True
    """Every row is exactly this long."""

    def append(self, k_BGTK: Tensor, v_BGTK: Tensor, parts_BT: Tensor | None) -> Self:
        """Put new positions behind each row; ``advance`` then counts them."""
        parts_BL = self.parts_BL
        if parts_BL is not None or parts_BT is not None:
            shape = (len(k_BGTK), 1, k_BGTK.shape[2], 1)
            new = k_BGTK.new_zeros(shape, dtype=torch.long) if parts_BT is None else parts_BT.long().view(shape)
            slots = self.k_BGLK.shape[2]
            old = new.new_zeros(len(new), 1, slots, 1) if parts_BL is None else parts_BL[:, None, :, None]
            parts_BL = self._with(old, new).squeeze(3).squeeze(1)
        k_BGLK, v_BGLK = self._with(self.k_BGLK, k_BGTK), self._with(self.v_BGLK, v_BGTK)
        return replace(self, k_BGLK=k_BGLK, v_BGLK=v_BGLK, parts_BL=parts_BL)

    def advance(self, layout: Layout, length: int) -> Self:
        """Count what was appended. Of packed rows only the last segment is kept, moved to the front."""
        if layout.starts_BT is None:
            even = self.even and layout.lengths_B is None
            after_B = layout.advance(self.length_B, length)
            return replace(self, length_B=after_B, filled=self.filled + length, even=even)
        column_T = torch.arange(length, device=self.length_B.device)
        opens_BT = layout.starts_BT
        if layout.lengths_B is not None:
            opens_BT = opens_BT & (column_T < layout.lengths_B[:, None])
        begin_B = torch.where(opens_BT, column_T, -1).amax(1)
        drop_B = torch.where(begin_B < 0, 0, self.length_B + begin_B)
        after_B = layout.advance(self.length_B, length)
        low, high = (int(n) for n in after_B.aminmax())
        moved = self._slots(torch.arange(high, device=drop_B.device) + drop_B[:, None])
        return replace(moved, length_B=after_B, filled=high, even=low == high)

    def keep(self, columns_BR: Tensor, of: int | Tensor) -> Self:
        """Of the last ``of`` positions (a token tree) keep these columns, in this order; -1 = none.

        ``of`` is the number of columns of that call, or of the valid ones in each row. The accepted path of a tree
        becomes the row's continuation, as if only its tokens had been fed.
        """
        before_B = self.length_B - of
        kept = (columns_BR >= 0).sum(1)
        slot_L = torch.arange(self.filled, device=before_B.device)
        rank_BL = (slot_L - before_B[:, None]).clamp(0, max(columns_BR.shape[1] - 1, 0))
        inside_BL = (slot_L >= before_B[:, None]) & (slot_L < (before_B + kept)[:, None])
        source_BL = slot_L.expand_as(inside_BL)
        if columns_BR.shape[1]:
            source_BL = torch.where(inside_BL, before_B[:, None] + columns_BR.gather(1, rank_BL), source_BL)
        after_B = before_B + kept
        low, high = (int(n) for n in after_B.aminmax())
        return replace(self._slots(source_BL), length_B=after_B, filled=high, even=low == high)

    def rollback(self, n_B: Tensor) -> Self:
        """Forget the last ``n_B`` positions of each row; any number that the row holds."""
        if bool((n_B > self.length_B).any()):
            raise ConfigError(f"cannot go back by {n_B.tolist()}: the rows are {self.length_B.tolist()} long")
        fewest, most = (int(n) for n in n_B.aminmax())
        even = self.even and fewest == most
        return replace(self, length_B=self.length_B - n_B, filled=self.filled - fewest, even=even, trail=None)

    def select(self, rows_R: Tensor) -> Self:
        """Rows in a new order; copies the slots in use alone, which is what a beam pays every step."""
        return self._copied(lambda tensor: tensor.index_select(0, rows_R))

    def fork(self) -> Self:
        """A cache of its own; copies the slots in use alone."""
        return self._copied(torch.clone)

    def _copied(self, change: Callable[[Tensor], Tensor]) -> Self:
        def copy(tensor: Tensor, axis: int) -> Tensor:
            if tensor.requires_grad:
                return change(tensor)
            used = change(tensor.narrow(axis, 0, min(self.filled, tensor.shape[axis])))
            shape = list(tensor.shape)
            shape[0] = len(used)
            whole = tensor.new_zeros(shape)
            whole.narrow(axis, 0, used.shape[axis]).copy_(used)
            return whole

        parts_BL = None if self.parts_BL is None else copy(self.parts_BL, 1)
        k_BGLK, v_BGLK = copy(self.k_BGLK, 2), copy(self.v_BGLK, 2)
        return replace(self, length_B=change(self.length_B), k_BGLK=k_BGLK, v_BGLK=v_BGLK, parts_BL=parts_BL)

    def _with(self, old: Tensor, new: Tensor) -> Tensor:
        """Slots with new positions behind each row's own length: in place, or a new tensor where gradients need it."""
        start, stop = self.filled, self.filled + new.shape[2]
        graph = torch.is_grad_enabled() and (old.requires_grad or new.requires_grad)
        if self.even and graph:
            return torch.cat([old[:, :, :start].to(new.dtype), new], 2)
        old = _room(old, stop, self.filled, new)
        if self.even:
            old[:, :, start:stop] = new
            return old
        if new.shape[2] == 1 and not graph:
            rows_B = torch.arange(len(new), device=new.device)
            old[rows_B, :, self.length_B] = new[:, :, 0].to(old.dtype)
            return old
        column_BL = torch.arange(stop, device=new.device) - self.length_B[:, None]
        index = column_BL.clamp(0, new.shape[2] - 1)[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
        fresh = ((column_BL >= 0) & (column_BL < new.shape[2]))[:, None, :, None]
        both = torch.where(fresh, new.gather(2, index).to(old.dtype), old[:, :, :stop])
        return both if graph else _write(old, both)

    def _slots(self, source_BL: Tensor) -> Self:
        """Slots taken from other slots of the same row."""
        source_BL = source_BL.clamp_max(self.k_BGLK.shape[2] - 1)

        def take(tensor: Tensor) -> Tensor:
            index = source_BL[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
            moved = tensor.gather(2, index)
            graph = torch.is_grad_enabled() and tensor.requires_grad
            return moved if graph else _write(tensor, moved)

        parts_BL = None if self.parts_BL is None else take(self.parts_BL[:, None, :, None]).squeeze(3).squeeze(1)
        return replace(self, k_BGLK=take(self.k_BGLK), v_BGLK=take(self.v_BGLK), parts_BL=parts_BL)


def _room(old: Tensor, slots: int, filled: int, like: Tensor) -> Tensor:
    """A buffer of at least this many slots; at least twice the old one where it must grow.

    An empty buffer takes the dtype of what comes: under autocast keys are narrower than parameters. Slots are zeros,
    never whatever memory held: a hidden NaN times a weight of zero is still NaN.
    """
    dtype = old.dtype if filled else like.dtype
    if slots <= old.shape[2] and dtype == old.dtype:
        return old
    length = old.shape[2] if slots <= old.shape[2] else max(slots, 2 * old.shape[2], LEAST)
    buffer = old.new_zeros(*old.shape[:2], length, old.shape[3], dtype=dtype)
    if filled == 0:
        return buffer
    used = old[:, :, : min(filled, old.shape[2])]
    return torch.cat([used, buffer[:, :, used.shape[2] :]], 2) if old.requires_grad else _write(buffer, used)


def _write(buffer: Tensor, values: Tensor) -> Tensor:
    buffer[:, :, : values.shape[2]] = values
    return buffer
