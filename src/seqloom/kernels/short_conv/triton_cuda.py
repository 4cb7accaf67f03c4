from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqloom.kernels.short_conv import ACTIVATIONS, _last, _numbers, _window

STEPS, CHANNELS = 32, 64


def refuses(x_BTD: Tensor, weight_DK: Tensor, *rest: Any) -> str | None:
    bias_D, before_BKD, segments_BT, lengths_B, activation, ahead = rest
    (B, T, D), K = x_BTD.shape, weight_DK.shape[1]
    if activation not in ACTIVATIONS or not 0 <= ahead < K:
        return "the activation or ahead is wrong"
    if x_BTD.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        return f"it serves no {x_BTD.dtype}"
    wanted = (weight_DK, (D, K)), (bias_D, (D,)), (before_BKD, (B, K - 1, D)), (segments_BT, (B, T)), (lengths_B, (B,))
    if any(value is not None and tuple(value.shape) != shape for value, shape in wanted):
        return "the inputs differ in shape"
    return "there is nothing to compute" if not x_BTD.numel() else None


def forward(
    x_BTD: Tensor,
    weight_DK: Tensor,
    bias_D: Tensor | None = None,
    before_BKD: Tensor | None = None,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
    activation: str = "none",
    ahead: int = 0,
) -> tuple[Tensor, Tensor]:
    (B, T, D), K = x_BTD.shape, weight_DK.shape[1]
    x_BTD, weight_DK = x_BTD.detach().contiguous(), weight_DK.detach().contiguous()
    y_BTD, number_BT = torch.empty_like(x_BTD), _numbers(x_BTD, segments_BT, lengths_B)
    number_BT = None if number_BT is None else number_BT.contiguous()  # segments may come transposed
    wide = tl.float64 if x_BTD.dtype == torch.float64 else tl.float32
    bias = None if bias_D is None else bias_D.detach().contiguous()
    before = None if before_BKD is None else before_BKD.detach().contiguous()
    _convolve[(B, triton.cdiv(T, STEPS), triton.cdiv(D, CHANNELS))](
        x_BTD, weight_DK, bias, before, number_BT, y_BTD, T, D, AHEAD=ahead, K=K,
        SILU=activation == "silu", WIDE=wide, STEPS=STEPS, CHANNELS=CHANNELS,
    )  # fmt: skip
    tail = _tail(x_BTD, before_BKD, number_BT, lengths_B, K)
    return y_BTD, tail.to(x_BTD.dtype if before_BKD is None else before_BKD.dtype)


def _tail(
    x_BTD: Tensor, before_BKD: Tensor | None, number_BT: Tensor | None, lengths_B: Tensor | None, K: int
) -> Tensor:
    if number_BT is None and x_BTD.shape[1] >= K - 1:
        return x_BTD[:, x_BTD.shape[1] - (K - 1) :].clone()
    return _last(_window(x_BTD, before_BKD, number_BT, K, 0), number_BT, lengths_B, K, 0)


@triton.jit
def _convolve(
    x_ptr, weight_ptr, bias_ptr, before_ptr, number_ptr, y_ptr, T, D, AHEAD: tl.constexpr, K: tl.constexpr,
    SILU: tl.constexpr, WIDE: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)  # 64-bit before any pointer arithmetic
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    d = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    own = tl.zeros((STEPS,), tl.int64)
    if number_ptr is not None:
        own = tl.load(number_ptr + b * T + t, mask=t < T, other=-1)
    z = tl.zeros((STEPS, CHANNELS), WIDE)
    if bias_ptr is not None:
        z += tl.load(bias_ptr + d, mask=d < D, other=0.0).to(WIDE)[None, :]
    for k in tl.static_range(K):
        s = t + AHEAD - (K - 1) + k
        tap = tl.load(weight_ptr + d * K + k, mask=d < D, other=0.0).to(WIDE)
        inside = (s >= 0) & (s < T)
        if number_ptr is not None:
            inside = inside & (tl.load(number_ptr + b * T + s, mask=inside, other=-2) == own)
        row = tl.load(x_ptr + (b * T + s[:, None]) * D + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
        z += tap[None, :] * row.to(WIDE)
        if before_ptr is not None:
            early = (s < 0) & (own == 0)
            at = (b * (K - 1) + s[:, None] + (K - 1)) * D + d[None, :]
            row = tl.load(before_ptr + at, mask=early[:, None] & (d < D)[None, :], other=0.0)
            z += tap[None, :] * row.to(WIDE)
    if SILU:
        z = z / (1 + tl.exp(-z))
    y = tl.where((own >= 0)[:, None], z, 0.0)
    tl.store(y_ptr + (b * T + t[:, None]) * D + d[None, :], y, mask=(t < T)[:, None] & (d < D)[None, :])
