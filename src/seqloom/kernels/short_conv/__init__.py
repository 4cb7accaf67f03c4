"""Depthwise convolution over a few steps, with the state and the segments that sequence models need.

    z_t = bias + sum_k weight_k * x_{t + ahead - (K - 1) + k},   y_t = z_t or silu(z_t)

Causal with ``ahead`` = 0, centred with ``ahead`` = (K - 1) / 2. Inputs before the first column come from ``before``.
A tap reaches only positions of its own segment; ``before`` belongs to segment 0. Pads are no inputs and give 0.

Shapes: B batch, T time, D channels, K taps (for states: the K - 1 inputs before).
Source: Gu and Dao, "Mamba", 2023, arXiv:2312.00752, section 3.4 (the convolution in its block).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad, silu

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel

ACTIVATIONS = ("none", "silu")


@kernel
def short_conv(
    x_BTD: Tensor,
    weight_DK: Tensor,
    bias_D: Tensor | None = None,
    before_BKD: Tensor | None = None,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
    activation: str = "none",
    ahead: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the outputs and the last K - 1 inputs, the ``before_BKD`` of the next call.

    Args:
        x_BTD: inputs; T may be 0.
        weight_DK: taps, the latest input last.
        bias_D: added to every output.
        before_BKD: the K - 1 inputs before the first column; None = zeros.
        segments_BT: number of each position's segment, from 0 for what continues ``before``.
        lengths_B: valid columns of each row; the others are pads on the right.
        activation: "none" or "silu".
        ahead: inputs that an output sees beyond its own position.
    """
    K = weight_DK.shape[1]
    if activation not in ACTIVATIONS or not 0 <= ahead < K:
        raise ConfigError(f"short_conv: activation {activation!r} of {ACTIVATIONS}, ahead {ahead} of 0..{K - 1}")
    number_BT = _numbers(x_BTD, segments_BT, lengths_B)
    window_BSD = _window(x_BTD, before_BKD, number_BT, K, ahead)
    z_BTD = _convolve(window_BSD, weight_DK, bias_D, number_BT, ahead)
    y_BTD = silu(z_BTD) if activation == "silu" else z_BTD
    if number_BT is not None:
        y_BTD = y_BTD.masked_fill((number_BT < 0)[..., None], 0)
    after_BKD = _last(window_BSD, number_BT, lengths_B, K, ahead)
    return y_BTD.to(x_BTD.dtype), after_BKD.to(x_BTD.dtype if before_BKD is None else before_BKD.dtype)


@short_conv.shapes
def shapes(
    x_BTD, weight_DK, bias_D=None, before_BKD=None, segments_BT=None, lengths_B=None, activation="none", ahead=0
):
    (B, _, D), like = x_BTD.shape, x_BTD if before_BKD is None else before_BKD
    return x_BTD.new_empty(x_BTD.shape), like.new_empty((B, weight_DK.shape[1] - 1, D))


@short_conv.vjp(outputs=())
def backward(grads, inputs, outputs):
    (dy_BTD, dafter_BKD), (x_BTD, weight_DK, bias_D, before_BKD, segments_BT, lengths_B, _, ahead) = grads, inputs
    dx_BTD, dweight_DK, dbias_D, dbefore_BKD = short_conv_backward(dy_BTD, *inputs)
    number_BT = _numbers(x_BTD, segments_BT, lengths_B)
    at_BK, kept_BK = _places(x_BTD, number_BT, lengths_B, weight_DK.shape[1], ahead)
    dafter_BKD = (dafter_BKD if kept_BK is None else dafter_BKD * kept_BK[..., None]).to(dx_BTD.dtype)
    dall_BSD = torch.cat([dbefore_BKD.to(dx_BTD.dtype), dx_BTD], 1)
    dall_BSD = dall_BSD.scatter_add(1, at_BK[..., None].expand(-1, -1, x_BTD.shape[2]), dafter_BKD)
    dbefore_BKD, dx_BTD = dall_BSD.split([weight_DK.shape[1] - 1, x_BTD.shape[1]], 1)
    dbefore = None if before_BKD is None else dbefore_BKD.to(before_BKD.dtype)
    return dx_BTD, dweight_DK, None if bias_D is None else dbias_D, dbefore, None, None, None, None


@short_conv.cost
def cost(x_BTD, weight_DK, bias_D=None, before_BKD=None, segments_BT=None, lengths_B=None, activation="none", ahead=0):
    given = (value for value in (bias_D, before_BKD, segments_BT, lengths_B) if value is not None)
    (B, _, D), K = x_BTD.shape, weight_DK.shape[1]
    state = B * (K - 1) * D * x_BTD.element_size()
    columns = x_BTD.shape[0] * x_BTD.shape[1] if lengths_B is None else int(lengths_B.sum())
    return Cost(columns * D * K, 2 * x_BTD.nbytes + weight_DK.nbytes + state + sum(value.nbytes for value in given))


@short_conv.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | str | int | None, ...]]:
    """Smallest first: plain, everything at once, fewer steps than taps, pads alone, centred, seven taps, no step."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype)

    def segments(B: int, T: int) -> Tensor:
        return (torch.rand(B, T, generator=rng) < 0.3).long().cumsum(1)

    yield draw(1, 1, 1), draw(1, 2), None, None, None, None, "none", 0
    lengths_B = torch.tensor([5, 3])
    yield draw(2, 5, 3), draw(3, 3), draw(3), draw(2, 2, 3), segments(2, 5), lengths_B, "silu", 0
    yield draw(3, 2, 5), draw(5, 4), draw(5), draw(3, 3, 5), None, torch.tensor([2, 1, 0]), "none", 0
    yield draw(2, 63, 17), draw(17, 4), draw(17), None, None, None, "silu", 0
    yield draw(2, 40, 33), draw(33, 5), None, draw(2, 4, 33), segments(2, 40), None, "none", 2
    yield draw(3, 37, 64), draw(64, 7), draw(64), None, segments(3, 37), torch.tensor([37, 20, 1]), "silu", 6
    yield draw(2, 0, 3), draw(3, 4), draw(3), draw(2, 3, 3), None, None, "silu", 0


@kernel
def short_conv_backward(
    dy_BTD: Tensor,
    x_BTD: Tensor,
    weight_DK: Tensor,
    bias_D: Tensor | None = None,
    before_BKD: Tensor | None = None,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
    activation: str = "none",
    ahead: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and before through the outputs. The weights' sum makes it an op of its own."""
    K, T = weight_DK.shape[1], x_BTD.shape[1]
    number_BT = _numbers(x_BTD, segments_BT, lengths_B)
    window_BSD = _window(x_BTD, before_BKD, number_BT, K, ahead)
    dz_BTD = dy_BTD.to(window_BSD.dtype)
    if activation == "silu":
        z_BTD = _convolve(window_BSD, weight_DK, bias_D, number_BT, ahead)
        gate_BTD = z_BTD.sigmoid()
        dz_BTD = dz_BTD * gate_BTD * (1 + z_BTD * (1 - gate_BTD))
    if number_BT is not None:
        dz_BTD = dz_BTD.masked_fill((number_BT < 0)[..., None], 0)
    dwindow_BSD, dtaps = torch.zeros_like(window_BSD), []
    for k, seen_BT in enumerate(_seen(number_BT, K, ahead)):
        dtap_BTD = dz_BTD if seen_BT is None else dz_BTD * seen_BT[..., None]
        dtaps.append((dtap_BTD * window_BSD[:, ahead + k : ahead + k + T]).sum((0, 1)))
        dwindow_BSD = dwindow_BSD + pad(dtap_BTD * weight_DK[:, k], (0, 0, ahead + k, K - 1 - k))
    dbefore_BKD, dx_BTD, _ = dwindow_BSD.split([K - 1, T, ahead], 1)
    dweight_DK, dbias_D = torch.stack(dtaps, 1).to(weight_DK.dtype), dz_BTD.sum((0, 1)).to(weight_DK.dtype)
    return dx_BTD.to(x_BTD.dtype).contiguous(), dweight_DK, dbias_D, dbefore_BKD.to(x_BTD.dtype).contiguous()


@short_conv_backward.shapes
def backward_shapes(
    dy_BTD, x_BTD, weight_DK, bias_D=None, before_BKD=None, segments_BT=None, lengths_B=None, activation="none", ahead=0
):
    (B, _, D), K = x_BTD.shape, weight_DK.shape[1]
    dbefore_BKD = x_BTD.new_empty((B, K - 1, D))
    return x_BTD.new_empty(x_BTD.shape), weight_DK.new_empty((D, K)), weight_DK.new_empty((D,)), dbefore_BKD


@short_conv_backward.cost
def backward_cost(dy_BTD, x_BTD, weight_DK, *rest):
    return Cost(2 * cost(x_BTD, weight_DK, *rest).macs, dy_BTD.nbytes + cost(x_BTD, weight_DK, *rest).bytes)


@short_conv_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | str | int | None, ...]]:
    """Adjoints of the convolution's own cases."""
    for case in examples(rng, dtype):
        yield torch.randn(case[0].shape, generator=rng, dtype=dtype), *case


def _numbers(x_BTD: Tensor, segments_BT: Tensor | None, lengths_B: Tensor | None) -> Tensor | None:
    """Segment of every position, -1 at pads; None where all are of one."""
    if segments_BT is None and lengths_B is None:
        return None
    (B, T, _), device = x_BTD.shape, x_BTD.device
    number_BT = torch.zeros(B, T, dtype=torch.long, device=device) if segments_BT is None else segments_BT.long()
    if lengths_B is None:
        return number_BT
    return number_BT.masked_fill(torch.arange(T, device=device) >= lengths_B[:, None], -1)


def _window(x_BTD: Tensor, before_BKD: Tensor | None, number_BT: Tensor | None, K: int, ahead: int) -> Tensor:
    """All inputs that a tap can meet: those before, those of this call, zeros ahead."""
    wide = torch.promote_types(x_BTD.dtype, torch.float32)
    x_BTD = x_BTD.to(wide)
    if number_BT is not None:
        x_BTD = x_BTD.masked_fill((number_BT < 0)[..., None], 0)
    if before_BKD is None:
        return pad(x_BTD, (0, 0, K - 1, ahead))
    return pad(torch.cat([before_BKD.to(wide), x_BTD], 1), (0, 0, 0, ahead))


def _seen(number_BT: Tensor | None, K: int, ahead: int) -> list[Tensor | None]:
    """For each tap, the positions from which it meets an input of their own segment; None = all."""
    if number_BT is None:
        return [None] * K
    T, padded_BS = number_BT.shape[1], pad(pad(number_BT, (K - 1, 0)), (0, ahead), value=-1)
    return [padded_BS[:, ahead + k : ahead + k + T] == number_BT for k in range(K)]


def _convolve(
    window_BSD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, number_BT: Tensor | None, ahead: int
) -> Tensor:
    K = weight_DK.shape[1]
    T = window_BSD.shape[1] - (K - 1) - ahead
    z_BTD = window_BSD.new_zeros(1) if bias_D is None else bias_D.to(window_BSD.dtype)
    for k, seen_BT in enumerate(_seen(number_BT, K, ahead)):
        tap_BTD = window_BSD[:, ahead + k : ahead + k + T]
        z_BTD = z_BTD + weight_DK[:, k] * (tap_BTD if seen_BT is None else tap_BTD * seen_BT[..., None])
    return z_BTD


def _places(
    x_BTD: Tensor, number_BT: Tensor | None, lengths_B: Tensor | None, K: int, ahead: int
) -> tuple[Tensor, Tensor | None]:
    """Where in the window the last K - 1 inputs lie, and which of them the last segment may still see."""
    B, T, _ = x_BTD.shape
    at_K = torch.arange(K - 1, device=x_BTD.device)
    end_B = torch.full((B,), T, device=x_BTD.device) if lengths_B is None else lengths_B.long()
    at_BK = end_B[:, None] + at_K
    if number_BT is None or K == 1:
        return at_BK, None
    number_BK = pad(number_BT, (K - 1, 0)).gather(1, at_BK)
    return at_BK, number_BK == number_BK[:, -1:]


def _last(window_BSD: Tensor, number_BT: Tensor | None, lengths_B: Tensor | None, K: int, ahead: int) -> Tensor:
    x_BTD = window_BSD[:, K - 1 : window_BSD.shape[1] - ahead]
    at_BK, kept_BK = _places(x_BTD, number_BT, lengths_B, K, ahead)
    last_BKD = window_BSD.gather(1, at_BK[..., None].expand(-1, -1, window_BSD.shape[2]))
    return last_BKD if kept_BK is None else last_BKD * kept_BK[..., None]
