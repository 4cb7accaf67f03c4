"""What the gated recurrent cells share: parameters, widths of numbers, and the fused operator's habits.

Shapes: B batch, T time, D width, H hidden, G stacked gates.
"""

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError


def hidden_width(hidden: int, width: int) -> int:
    """The hidden width that was asked for; 0 = the width."""
    if hidden < 0:
        raise ConfigError(f"hidden must be 0 (the width) or more, not {hidden}")
    return hidden or width


def uniform(rows: int, columns: int, hidden: int) -> nn.Parameter:
    """A weight drawn as torch.nn draws those of its recurrent layers: uniform within 1/sqrt(H)."""
    return nn.Parameter(torch.empty(rows, columns).uniform_(-(hidden**-0.5), hidden**-0.5))


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of gates and states: float32 at least, for a state that sums many small steps loses them in bf16."""
    return torch.promote_types(dtype, torch.float32)


def together(weights: list[Tensor]) -> list[Tensor]:
    """Weights as views of one buffer, the only form that cuDNN takes without a warning and a hidden copy."""
    if not weights[0].is_cuda:
        return weights
    flat = torch.cat([weight.reshape(-1) for weight in weights])
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def last_BH(y_BTH: Tensor, before_BH: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The output at each row's last valid column; what was before where a row has none."""
    if lengths_B is None:
        return y_BTH[:, -1]
    rows_B = torch.arange(len(y_BTH), device=y_BTH.device)
    return torch.where((lengths_B > 0)[:, None], y_BTH[rows_B, (lengths_B - 1).clamp_min(0)], before_BH)
