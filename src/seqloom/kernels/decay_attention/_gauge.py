from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gauge:
    """The stabiliser of the mLSTM cell and the gates in its unit, both <= 0. The unit is a constant to autograd."""

    m_BTH: Tensor
    """Stabiliser of every position; no gradient."""
    log_decay_BTH: Tensor
    log_input_BTH: Tensor
    first_BH: Tensor
    """0 whose gradient is that of the first m: the unit in which the given state is written."""
    last_BH: Tensor
    """0 whose gradient is minus that of the last m: the unit in which the state is returned."""
    m_BH: Tensor
    """The last stabiliser, with its gradient."""


def gauge(log_decay_BTH: Tensor, log_input_BTH: Tensor, m_BH: Tensor, starts_BT: Tensor | None) -> Gauge:
    """Stabilise the gates: m_t = max(log_decay_t + m_{t-1}, log_input_t), m = 0 before a segment that starts here.

    With F the running sum of log_decay, m_t - F_t is the running maximum of log_input_s - F_s, so that the scaled
    decay is a difference of a running maximum's neighbours: never above 0. In float64, since F grows with T.
    """
    decay, given = log_decay_BTH.double(), log_input_BTH.double()
    m_BH = m_BH.double().masked_fill(m_BH == -torch.inf, 0)
    if not decay.shape[1]:
        return Gauge(decay, decay, given, m_BH - m_BH.detach(), m_BH.detach() - m_BH, m_BH)
    forgets = decay.new_zeros(decay.shape[:2], dtype=torch.bool) if starts_BT is None else starts_BT
    forgets = forgets[..., None]
    before = torch.cat([m_BH[:, None], torch.zeros_like(decay[:, 1:])], 1).masked_fill(forgets, 0)
    opens = torch.cat([torch.ones_like(forgets[:, :1]), forgets[:, 1:]], 1)
    total = decay.cumsum(1)
    floor = torch.where(opens, torch.maximum(given, decay + before), given) - total
    where = _running_argmax(floor.detach(), opens, starts_BT is not None)
    peak = floor.gather(1, where)
    m = peak + total
    with torch.no_grad():
        previous = torch.cat([before[:, :1], peak[:, :-1]], 1)
        scaled_decay = torch.where(forgets, 0, previous - peak)
        scaled_input = given - total - peak
    given = given.masked_fill(given == -torch.inf, 0)
    last = m[:, -1]
    return Gauge(
        m.detach(),
        scaled_decay + (decay - decay.detach()),
        scaled_input + (given - given.detach()),
        m_BH - m_BH.detach(),
        last.detach() - last,
        last,
    )


def _running_argmax(x_BTH: Tensor, opens: Tensor, packed: bool) -> Tensor:
    """Where the largest entry of the segment so far lies. The first entry of a segment is finite."""
    if not packed:
        return x_BTH.cummax(1).indices
    # Later segments are lifted above all earlier ones, in ranks: adding a large number to x would cost its digits.
    rank_BTH = x_BTH.argsort(dim=1, stable=True).argsort(dim=1)
    return (rank_BTH + opens.long().cumsum(1) * x_BTH.shape[1]).cummax(1).indices
