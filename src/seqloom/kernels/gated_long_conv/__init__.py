"""A long convolution between two gates: the hot loop of Hyena.

    y_t = q_t * (sum_{l >= 0} k_l u_{t-l} + sum_{m >= 1} r_m u_{t+m} + s u_t),    u_t = p_t v_t

Either gate may be left out. A backend multiplies while it moves numbers into and out of its transforms, so that
neither u nor the sums are ever written to memory; the backward pass keeps the inputs alone and makes both again.

Shapes: B batch, T time, D channels, L taps on the past, M taps on the future (the first is lag -1), n transform length.
Arithmetic is float32 (float64 where v or k is), whatever the dtype of v; y has the dtype of v.
Source: Poli et al., "Hyena hierarchy: towards larger convolutional language models", 2023, arXiv:2302.10866, section
3.1 (the recurrence of gates and convolutions).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.core import counting
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.long_conv import long_conv, long_conv_backward
from seqloom.kernels.long_conv._lags import fft_length, fft_macs, trim, wide


@kernel
def gated_long_conv(
    v_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    pre_BTD: Tensor | None = None,
    post_BTD: Tensor | None = None,
) -> Tensor:
    """Multiply by ``pre_BTD``, convolve along time as ``long_conv`` does, multiply by ``post_BTD``."""
    _check(v_BTD, pre_BTD, post_BTD)
    u_BTD = v_BTD.to(wide(v_BTD, k_DL))
    if pre_BTD is not None:
        u_BTD = u_BTD * pre_BTD.to(u_BTD.dtype)
    y_BTD = long_conv(u_BTD, k_DL, back_DM, skip_D)
    if post_BTD is not None:
        y_BTD = y_BTD * post_BTD.to(y_BTD.dtype)
    return y_BTD.to(v_BTD.dtype)


@kernel
def gated_long_conv_backward(
    dy_BTD: Tensor,
    v_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    pre_BTD: Tensor | None = None,
    post_BTD: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``gated_long_conv`` for v, k, back, skip, pre and post; what was not given has an empty one."""
    dtype = wide(v_BTD, k_DL)
    u_BTD, dsum_BTD = v_BTD.to(dtype), dy_BTD.to(dtype)
    dpre_BTD, dpost_BTD = v_BTD.new_empty(0), v_BTD.new_empty(0)
    if pre_BTD is not None:
        u_BTD = u_BTD * pre_BTD.to(dtype)
    if post_BTD is not None:
        dpost_BTD = (dsum_BTD * long_conv(u_BTD, k_DL, back_DM, skip_D)).to(post_BTD.dtype)
        dsum_BTD = dsum_BTD * post_BTD.to(dtype)
    du_BTD, dk_DL, dback_DM, dskip_D, _ = long_conv_backward(dsum_BTD, u_BTD, k_DL, back_DM, skip_D)
    if pre_BTD is not None:
        dpre_BTD = (du_BTD * v_BTD.to(dtype)).to(pre_BTD.dtype)
        du_BTD = du_BTD * pre_BTD.to(dtype)
    given = (v_BTD, k_DL, back_DM, skip_D)
    made = (du_BTD, dk_DL, dback_DM, dskip_D)
    first = (dx.to(v_BTD.dtype if x is None else x.dtype) for x, dx in zip(given, made, strict=True))
    return *first, dpre_BTD, dpost_BTD  # type: ignore[bad-return]  (four tensors)


@gated_long_conv.shapes
def shapes(v_BTD, k_DL, back_DM=None, skip_D=None, pre_BTD=None, post_BTD=None):
    return torch.empty_like(v_BTD, memory_format=torch.contiguous_format)


@gated_long_conv_backward.shapes
def backward_shapes(dy_BTD, v_BTD, k_DL, back_DM=None, skip_D=None, pre_BTD=None, post_BTD=None):
    inputs = (v_BTD, k_DL, back_DM, skip_D, pre_BTD, post_BTD)
    return tuple(v_BTD.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs)


@gated_long_conv.vjp(outputs=())
def backward(grads, inputs, outputs):
    given = gated_long_conv_backward(grads[0], *inputs)
    return tuple(None if x is None else dx for x, dx in zip(inputs, given, strict=True))


@gated_long_conv.cost
def cost(v_BTD, k_DL, back_DM=None, skip_D=None, pre_BTD=None, post_BTD=None) -> Cost:
    inner = long_conv.floor(v_BTD, k_DL, back_DM, skip_D)
    gates = sum(x.nbytes for x in (pre_BTD, post_BTD) if x is not None)
    return Cost(macs=inner.macs, bytes=inner.bytes + gates)


@gated_long_conv_backward.cost
def backward_cost(dy_BTD, v_BTD, k_DL, back_DM=None, skip_D=None, pre_BTD=None, post_BTD=None) -> Cost:
    inner, (B, T, D) = long_conv_backward.floor(dy_BTD, v_BTD, k_DL, back_DM, skip_D), v_BTD.shape
    k_DL, back_DM, _ = trim(T, k_DL, back_DM, None)
    n = fft_length(T, 0, k_DL, back_DM)
    again = 0 if post_BTD is None else B * D * (fft_macs(n) + 2 * (n // 2 + 1))
    gates = sum(x.nbytes for x in (pre_BTD, post_BTD) if x is not None)
    return Cost(macs=inner.macs + again, bytes=inner.bytes + 2 * gates)


@gated_long_conv.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """T, D, taps, taps on the future, which gates: direct, prime, longer and shorter kernels than the sequence."""
    sizes = (
        (1, 1, 1, 1, 0, "both"),
        (2, 19, 3, 19, 0, "both"),
        (2, 0, 2, 3, 0, "both"),
        (0, 37, 3, 19, 4, "both"),
        (2, 37, 3, 64, 0, "pre"),
        (3, 67, 4, 23, 29, "post"),
        (2, 41, 5, 41, 41, "both"),
        (2, 128, 19, 128, 0, "none"),
    )
    for index, (B, T, D, L, M, gates) in enumerate(sizes):
        v, k, back, skip, pre, post = (
            torch.randn(shape, generator=rng, dtype=dtype)
            for shape in ((B, T, D), (D, L), (D, M), (D,), (B, T, D), (B, T, D))
        )
        keep = [x if gates in (name, "both") else None for name, x in (("pre", pre), ("post", post))]
        yield v, k, back if M else None, skip if index % 2 == 0 else None, *keep


@gated_long_conv_backward.cases
def backward_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Adjoints of its own cases."""
    for v_BTD, *rest in cases(rng, dtype):
        yield torch.randn(v_BTD.shape, generator=rng, dtype=dtype), v_BTD, *rest


@counting.addend("seqloom::gated_long_conv")
def _macs(args: tuple[Tensor | None, ...], out: Tensor) -> int:
    return gated_long_conv.floor(*args).macs


@counting.addend("seqloom::gated_long_conv_backward")
def _backward_macs(args: tuple[Tensor | None, ...], out: tuple[Tensor, ...]) -> int:
    return gated_long_conv_backward.floor(*args).macs


def _check(v_BTD: Tensor, pre_BTD: Tensor | None, post_BTD: Tensor | None) -> None:
    """Raise where a gate does not fit: broadcasting would hide it."""
    for name, gate in (("pre_BTD", pre_BTD), ("post_BTD", post_BTD)):
        if gate is not None and gate.shape != v_BTD.shape:
            raise ConfigError(f"gated_long_conv expects {name} {tuple(v_BTD.shape)}, not {tuple(gate.shape)}")
