"""Depthwise convolution with a kernel as long as the sequence, by the fast Fourier transform.

    y_t = sum_{l >= 0} k_l u_{t-l} + sum_{m >= 1} r_m u_{t+m} + s u_t

k acts on the past (lag 0 counted here, once), r on the future (its first tap is lag -1), s is a skip, and u reaches
back into the inputs *before* this chunk, which is all the state that a finite kernel needs. The transform is long
enough that nothing wraps around into the T outputs, and no longer: n >= max(E, T + L - 1, E + M), not 2 T + ....

Shapes: B batch, T time, D channels, L taps on the past, M taps on the future, S earlier inputs, E = S + T,
n transform length, F = n // 2 + 1 frequencies.
Arithmetic is float32 (float64 where an input is), whatever the dtype of u; y has the dtype of u.
Source: Cooley and Tukey, 1965; chunks: overlap-save, Oppenheim and Schafer, "Discrete-Time Signal Processing", 8.7.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core import counting
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.long_conv._lags import (
    by_fft,
    check,
    direct,
    fft_length,
    fft_macs,
    is_direct,
    ring,
    trim,
    unring,
    wide,
)


@kernel
def long_conv(
    u_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    before_BSD: Tensor | None = None,
) -> Tensor:
    """Convolve along time: k on the past, ``back_DM`` on the future, ``before_BSD`` are the inputs before this chunk.

    The shapes decide the form: with few taps or few outputs the sum is taken directly, else by FFT.
    """
    check(u_BTD, k_DL, back_DM, skip_D, before_BSD)
    T, dtype = u_BTD.shape[1], wide(u_BTD, k_DL)
    k_DL, back_DM, before_BSD = trim(T, k_DL, back_DM, before_BSD)
    past = () if before_BSD is None else (before_BSD.to(dtype),)
    input_BED = torch.cat([*past, u_BTD.to(dtype)], 1)
    form = direct if is_direct(T, k_DL, back_DM) or not u_BTD.numel() else by_fft
    y_BTD = form(input_BED, k_DL.to(dtype), None if back_DM is None else back_DM.to(dtype), T)
    if skip_D is not None:
        y_BTD = y_BTD + skip_D.to(dtype) * u_BTD.to(dtype)
    return y_BTD.to(u_BTD.dtype).contiguous()


@kernel
def long_conv_backward(
    dy_BTD: Tensor,
    u_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    before_BSD: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``long_conv`` for u, k, back, skip and before; what was not given has an empty one.

    du is dy correlated with the kernels; dk is dy correlated with u, summed over the batch before it is transformed
    back: three transforms of the size of u, and nothing is kept from the forward pass but its inputs.
    """
    T, dtype = u_BTD.shape[1], wide(u_BTD, k_DL)
    k_DK, back_DK, before_BKD = trim(T, k_DL, back_DM, before_BSD)
    S = 0 if before_BKD is None else before_BKD.shape[1]
    n = fft_length(T, S, k_DK, back_DK)
    if not u_BTD.numel():  # a transform of nothing is an error in MKL
        empty_BED, zeros_Dn = u_BTD.new_zeros(len(u_BTD), S + T, u_BTD.shape[2]), k_DL.new_zeros(len(k_DL), n)
        return unring(zeros_Dn.to(dtype), empty_BED.to(dtype), (u_BTD, k_DL, back_DM, skip_D, before_BSD), S)
    past = () if before_BKD is None else (before_BKD.to(dtype),)
    input_BDF = torch.fft.rfft(torch.cat([*past, u_BTD.to(dtype)], 1).transpose(1, 2), n)
    dy_BDF = torch.fft.rfft(pad(dy_BTD.to(dtype).transpose(1, 2), (S, 0)), n)
    kernel_DF = torch.fft.rfft(ring(k_DK, back_DK, skip_D, n, dtype))
    dinput_BED = torch.fft.irfft(dy_BDF * kernel_DF.conj(), n)[..., : S + T].transpose(1, 2)
    dring_Dn = torch.fft.irfft((dy_BDF * input_BDF.conj()).sum(0), n)
    return unring(dring_Dn, dinput_BED, (u_BTD, k_DL, back_DM, skip_D, before_BSD), S)


@long_conv.shapes
def shapes(u_BTD, k_DL, back_DM=None, skip_D=None, before_BSD=None):
    return torch.empty_like(u_BTD, memory_format=torch.contiguous_format)


@long_conv_backward.shapes
def backward_shapes(dy_BTD, u_BTD, k_DL, back_DM=None, skip_D=None, before_BSD=None):
    inputs = (u_BTD, k_DL, back_DM, skip_D, before_BSD)
    return tuple(u_BTD.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs)


@long_conv.vjp(outputs=())
def backward(grads, inputs, outputs):
    given = long_conv_backward(grads[0], *inputs)
    return tuple(None if x is None else dx for x, dx in zip(inputs, given, strict=True))


@long_conv_backward.cases
def backward_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Adjoints of the convolution's own cases."""
    for u_BTD, *rest in cases(rng, dtype):
        yield torch.randn(u_BTD.shape, generator=rng, dtype=dtype), u_BTD, *rest


@long_conv_backward.cost
def backward_cost(dy_BTD, u_BTD, k_DL, back_DM=None, skip_D=None, before_BSD=None) -> Cost:
    forward, (B, _, D) = cost(u_BTD, k_DL, back_DM, skip_D, before_BSD), u_BTD.shape
    k_DL, back_DM, before_BSD = trim(u_BTD.shape[1], k_DL, back_DM, before_BSD)
    n = fft_length(u_BTD.shape[1], 0 if before_BSD is None else before_BSD.shape[1], k_DL, back_DM)
    macs = fft_macs(n) * D * (3 * B + 2) + 2 * B * D * (n // 2 + 1) * 4
    return Cost(macs=macs, bytes=2 * forward.bytes - dy_BTD.nbytes)


@long_conv.cost
def cost(u_BTD, k_DL, back_DM=None, skip_D=None, before_BSD=None) -> Cost:
    B, T, D = u_BTD.shape
    moved = u_BTD.nbytes + sum(x.nbytes for x in (u_BTD, k_DL, back_DM, skip_D, before_BSD) if x is not None)
    k_DL, back_DM, before_BSD = trim(T, k_DL, back_DM, before_BSD)
    if is_direct(T, k_DL, back_DM):
        return Cost(macs=B * T * D * (k_DL.shape[1] + (0 if back_DM is None else back_DM.shape[1])), bytes=moved)
    n = fft_length(T, 0 if before_BSD is None else before_BSD.shape[1], k_DL, back_DM)
    return Cost(macs=fft_macs(n) * D * (2 * B + 1) + 2 * B * D * (n // 2 + 1) * 2, bytes=moved)


@long_conv.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """T, D, taps, taps on the future, earlier inputs: direct, prime, longer and shorter kernels than the sequence."""
    sizes = (
        (1, 1, 1, 1, 0, 0),
        (2, 19, 3, 19, 0, 0),
        (2, 0, 2, 3, 0, 0),
        (0, 37, 3, 19, 4, 5),
        (1, 1, 2, 31, 0, 30),
        (2, 37, 3, 5, 4, 0),
        (2, 41, 5, 64, 0, 17),
        (3, 67, 4, 23, 29, 40),
        (2, 128, 19, 128, 128, 0),
    )
    for index, (B, T, D, L, M, S) in enumerate(sizes):
        u, k, back, before = (
            torch.randn(shape, generator=rng, dtype=dtype) for shape in ((B, T, D), (D, L), (D, M), (B, S, D))
        )
        skip = torch.randn(D, generator=rng, dtype=dtype) if index % 2 else None
        yield u, k, back if M else None, skip, before if S else None


@counting.addend("seqloom::long_conv")
def _macs(args: tuple[Tensor | None, ...], out: Tensor) -> int:
    return long_conv.floor(*args).macs


@counting.addend("seqloom::long_conv_backward")
def _backward_macs(args: tuple[Tensor | None, ...], out: tuple[Tensor, ...]) -> int:
    return long_conv_backward.floor(*args).macs
