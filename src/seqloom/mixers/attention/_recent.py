"""The latest keys and values of each row: a memory of fixed size, the newest at the end.

Slot j of W holds position length - W + j of its row; what a short row does not fill yet stands at the front and is
never seen. How many ever entered tells how many slots are filled.

Shapes: B batch, G key heads, W slots, T new columns, K channels of a key, V of a value.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from seqloom.core.state import State


@dataclass(frozen=True, kw_only=True)
class Recent(State):
    """Keys and values (B, G, W, K or V), and how many ever entered."""

    k_BGWK: Tensor
    v_BGWV: Tensor
    entered_B: Tensor

    def joined(self, k_BGTK: Tensor, v_BGTV: Tensor) -> tuple[Tensor, Tensor]:
        """Old ones, then new ones (B, G, W + T, ...)."""
        old = (self.k_BGWK.to(k_BGTK.dtype), self.v_BGWV.to(v_BGTV.dtype))
        return torch.cat([old[0], k_BGTK], 2), torch.cat([old[1], v_BGTV], 2)

    def span(self, length: int, window: int) -> Tensor:
        """Slots of ``joined`` that each new column sees (B, T, 2): itself and window - 1 before it, where there are."""
        slots, device = self.k_BGWK.shape[2], self.entered_B.device
        at_T = slots + torch.arange(length, device=device)
        oldest_B1 = (slots - self.entered_B).clamp_min(0)[:, None]
        first_BT = torch.maximum(at_T + 1 - window, oldest_B1)
        return torch.stack([first_BT, (at_T + 1).expand_as(first_BT)], -1)

    def push(self, k_BGSK: Tensor, v_BGSV: Tensor, count_B: Tensor | int) -> Self:
        """The last W of what was joined, of which the first W + count are real in each row."""
        slots, grown = self.k_BGWK.shape[2], k_BGSK.shape[2] - self.k_BGWK.shape[2]
        if isinstance(count_B, int):
            k, v = k_BGSK[:, :, grown:], v_BGSV[:, :, grown:]
        else:
            at_BW = count_B[:, None] + torch.arange(slots, device=count_B.device)
            k, v = (
                x.gather(2, at_BW[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])) for x in (k_BGSK, v_BGSV)
            )
        k, v = k.to(self.k_BGWK.dtype), v.to(self.v_BGWV.dtype)
        return replace(self, k_BGWK=k.contiguous(), v_BGWV=v.contiguous(), entered_B=self.entered_B + count_B)
