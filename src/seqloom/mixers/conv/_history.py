"""The state of a long convolution: every input so far, and what later outputs already have of their sums.

    y, state = state.room(T).convolve(u, taps, lengths_B)

Slot l of row b holds input l of that row below the row's length, and behind it a part of output l. Going back is a
shorter length; the sums are then made anew at the next call. Rows may have different lengths; as long as they agree
(``even``), nothing asks the device about them. Without gradients a step writes into the line and costs O(log^2 t) a
channel; with gradients, and under torch.compile, a step is a dot product with all inputs and makes a new line.

Shapes: B batch, T new inputs, D channels, L slots.
Source: the algorithm of a step: kernels/long_conv/relaxed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.core.state import State
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv.relaxed import Taps, relaxed_step, relaxed_step_rows

LEAST = 64
"""Slots of a line that begins to grow."""
CHUNK = 64
"""A chunk of fewer than 1 / so many of the slots is fed step by step, a longer one by one transform of the line."""


@dataclass(frozen=True, kw_only=True)
class History(State):
    """Inputs and unfinished outputs (B, L, D) of one convolution."""

    in_place: ClassVar[bool] = True

    line_BLD: Tensor
    filled: int = 0
    """No row is longer than this."""
    even: bool = True
    """Every row is exactly this long."""
    since: int = 0
    """Inputs since the sums behind the inputs were complete; -1 = they mean nothing."""

    def room(self, length: int) -> Self:
        """With slots for this many more inputs; at least twice as many as before where it must grow."""
        slots, wanted = self.line_BLD.shape[1], self.filled + length
        if wanted <= slots:
            return self
        more = max(wanted, 2 * slots, LEAST) - slots
        return replace(self, line_BLD=pad(self.line_BLD, (0, 0, 0, more)), since=-1 if self.filled else self.since)

    def convolve(self, u_BTD: Tensor, taps: Taps, lengths_B: Tensor | None) -> tuple[Tensor, Self]:
        """Outputs of new inputs, and the state with them; ``lengths_B`` counts the valid ones of padded rows."""
        T, plain = u_BTD.shape[1], is_plain()
        if lengths_B is None and not plain and self.since >= 0 and self.line_BLD.shape[1] > (T - 1) * CHUNK:
            return self._steps(u_BTD, taps)
        if lengths_B is not None or not self.even:
            return self._rows(u_BTD, taps.k_DL, lengths_B, plain)
        before, after = self.filled, self.filled + T
        past_BSD, line_BLD = self.line_BLD[:, :before], self.line_BLD
        ahead = line_BLD.shape[1] - after
        if plain:
            y_BTD = long_conv(u_BTD, taps.k_DL, None, None, past_BSD)
            line_BLD = pad(torch.cat([past_BSD, u_BTD], 1), (0, 0, 0, ahead))
        else:  # the same transform gives the sums of the outputs to come
            all_BED = long_conv(pad(u_BTD, (0, 0, 0, ahead)), taps.k_DL, None, None, past_BSD)
            y_BTD = all_BED[:, :T]
            line_BLD[:, before:after], line_BLD[:, after:] = u_BTD, all_BED[:, T:]
        return y_BTD, self._after(line_BLD, self.length_B + T, T, self.even, -1 if plain else 0)

    def rollback(self, n_B: Tensor) -> Self:
        """Forget the last ``n_B`` inputs of each row; any number that the row holds."""
        if bool((n_B > self.length_B).any()):
            raise ConfigError(f"cannot go back by {n_B.tolist()}: the rows are {self.length_B.tolist()} long")
        fewest, most = (int(n) for n in n_B.aminmax()) if len(n_B) else (0, 0)
        even, since = self.even and fewest == most, self.since if most == 0 else -1
        return replace(
            self, length_B=self.length_B - n_B, filled=self.filled - fewest, even=even, since=since, trail=None
        )

    def recorded(self, points: Sequence[Self]) -> Self:
        """Itself: every earlier point is in it."""
        return self

    def where(self, keep_B: Tensor, other: Self) -> Self:
        """Rows of this state where ``keep_B``, of another one elsewhere; the sums are made anew."""
        slots = max(self.line_BLD.shape[1], other.line_BLD.shape[1])
        one_BLD, other_BLD = (pad(x, (0, 0, 0, slots - x.shape[1])) for x in (self.line_BLD, other.line_BLD))
        length_B = torch.where(keep_B, self.length_B, other.length_B)
        low, high = (int(n) for n in length_B.aminmax()) if len(length_B) else (0, 0)
        line_BLD = torch.where(keep_B[:, None, None], one_BLD, other_BLD)
        since = -1 if high else 0
        return replace(
            self, line_BLD=line_BLD, length_B=length_B, filled=high, even=low == high, since=since, trail=None
        )

    def _steps(self, u_BTD: Tensor, taps: Taps) -> tuple[Tensor, Self]:
        """One after the other, in place."""
        rows, length_B = [], self.length_B
        for t, u_BD in enumerate(u_BTD.unbind(1)):
            at, since = self.filled + t, self.since + t
            if self.even:
                rows.append(relaxed_step(self.line_BLD, u_BD, taps, at, since))
            else:
                rows.append(relaxed_step_rows(self.line_BLD, u_BD, taps, length_B + t, since, at))
        T = len(rows)
        return torch.stack(rows, 1), self._after(self.line_BLD, length_B + T, T, self.even, self.since + T)

    def _rows(self, u_BTD: Tensor, k_DL: Tensor, lengths_B: Tensor | None, plain: bool) -> tuple[Tensor, Self]:
        """Rows of different lengths: all inputs in their places, convolved from the first slot on."""
        _, T, D = u_BTD.shape
        new_B = torch.full_like(self.length_B, T) if lengths_B is None else lengths_B.to(self.length_B.dtype)
        slot_L = torch.arange(self.line_BLD.shape[1], device=u_BTD.device)
        column_BL = slot_L - self.length_B[:, None]
        fresh_BL = (column_BL >= 0) & (column_BL < new_B[:, None])
        moved_BLD = u_BTD.gather(1, column_BL.clamp(0, T - 1)[..., None].expand(-1, -1, D))
        held_BLD = self.line_BLD.masked_fill((column_BL >= 0)[..., None], 0)
        inputs_BLD = torch.where(fresh_BL[..., None], moved_BLD, held_BLD)
        sums_BLD = long_conv(inputs_BLD, k_DL)
        at_BT = (self.length_B[:, None] + torch.arange(T, device=u_BTD.device)).clamp_max(len(slot_L) - 1)
        y_BTD = sums_BLD.gather(1, at_BT[..., None].expand(-1, -1, D))
        if not plain:
            inputs_BLD = torch.where((column_BL < new_B[:, None])[..., None], inputs_BLD, sums_BLD)
        even = self.even and lengths_B is None
        return y_BTD, self._after(inputs_BLD, self.length_B + new_B, T, even, -1 if plain else 0)

    def _after(self, line_BLD: Tensor, length_B: Tensor, T: int, even: bool, since: int) -> Self:
        return replace(
            self, line_BLD=line_BLD, length_B=length_B, filled=self.filled + T, even=even, since=since, trail=None
        )


def is_plain() -> bool:
    """Whether a call must leave the line as it was: a graph may come back to it, or a compiler reads it."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


class Memo:
    """What steps need of a mixer's parameters, kept beside a state as long as these are the same numbers.

    One for all rows and all forks of a state: a function of the parameters, not of what was consumed.
    """

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.taps: tuple[Taps, ...] = ()

    def at(self, length: int, of: Iterable[Tensor], make: Callable[[int], tuple[Taps, ...]]) -> tuple[Taps, ...]:
        """Taps up to this length, from ``make`` where the parameters ``of`` have changed since."""
        key = (length, *((p.data_ptr(), p.dtype, None if p.is_inference() else p._version) for p in of))
        if key != self.key:
            self.taps, self.key = make(length), key
        return self.taps
