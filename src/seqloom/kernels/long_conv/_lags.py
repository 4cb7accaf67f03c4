"""What the forms of the long convolution share: which lags meet, how long a transform must be, the circle of lags.

Shapes: as in the kernel's ``__init__``.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError

Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""u, k, back, skip, before."""
DIRECT_TAPS = 8
"""Up to so many taps a sum of shifted products is quicker than a transform."""
DIRECT_OUTPUTS = 2
"""Up to so many outputs a dot product with the kernel is."""


def check(
    u_BTD: Tensor, k_DL: Tensor, back_DM: Tensor | None, skip_D: Tensor | None, before_BSD: Tensor | None
) -> None:
    """Raise where the shapes do not fit each other: broadcasting would hide it."""
    if u_BTD.ndim != 3:
        raise ConfigError(f"long_conv expects u (batch, time, channels), not {tuple(u_BTD.shape)}")
    B, _, D = u_BTD.shape
    for name, taps in (("k_DL", k_DL), ("back_DM", back_DM)):
        if taps is not None and (taps.ndim != 2 or taps.shape[0] != D):
            raise ConfigError(f"long_conv expects {name} ({D}, taps), one row a channel, not {tuple(taps.shape)}")
    if skip_D is not None and skip_D.shape != (D,):
        raise ConfigError(f"long_conv expects skip_D ({D},), not {tuple(skip_D.shape)}")
    if before_BSD is not None and (before_BSD.ndim != 3 or before_BSD.shape[::2] != (B, D)):
        raise ConfigError(f"long_conv expects before_BSD ({B}, earlier, {D}), not {tuple(before_BSD.shape)}")


def wide(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 where an input is: a half-precision FFT does not exist on a CPU and overflows elsewhere."""
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def trim(
    T: int, k_DL: Tensor, back_DM: Tensor | None, before_BSD: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Leave out inputs and taps that cannot meet: earlier inputs beyond L - 1, lags beyond E - 1 and T - 1."""
    S = 0 if before_BSD is None else min(before_BSD.shape[1], max(k_DL.shape[1] - 1, 0))
    before_BSD = None if before_BSD is None or S == 0 else before_BSD[:, before_BSD.shape[1] - S :]
    ahead = 0 if back_DM is None else min(back_DM.shape[1], max(T - 1, 0))
    return k_DL[:, : S + T], None if back_DM is None or ahead == 0 else back_DM[:, :ahead], before_BSD


def is_direct(T: int, k_DL: Tensor, back_DM: Tensor | None) -> bool:
    """Whether the direct form is the quicker one for these (trimmed) shapes."""
    taps = k_DL.shape[1] + (0 if back_DM is None else back_DM.shape[1])
    return taps <= DIRECT_TAPS or T <= DIRECT_OUTPUTS


def fft_length(T: int, S: int, k_DL: Tensor, back_DM: Tensor | None) -> int:
    """The quick transform length at which no wrapped term falls on one of the T outputs."""
    E, L, M = S + T, k_DL.shape[1], 0 if back_DM is None else back_DM.shape[1]
    return fast_length(max(E, T + L - 1, E + M))


def fast_length(least: int) -> int:
    """The smallest 2^a times 1, 3, 5, 7, 9, 15 or 25 that is at least this: other lengths transform more slowly."""
    return min(odd << max(-(-least // odd) - 1, 0).bit_length() for odd in (1, 3, 5, 7, 9, 15, 25))


def fft_macs(n: int) -> int:
    """Multiply-adds of one real transform of length n, after the usual count of 5/2 n log2(n) operations."""
    return round(1.25 * n * max(n.bit_length() - 1, 1))


def ring(k_DL: Tensor, back_DM: Tensor | None, skip_D: Tensor | None, n: int, dtype: torch.dtype) -> Tensor:
    """Both kernels and the skip on one circle of n lags: lag l at l, lag -m at n - m."""
    ring_Dn = pad(k_DL.to(dtype), (0, n - k_DL.shape[1]))
    if back_DM is not None:
        ring_Dn = ring_Dn + pad(back_DM.to(dtype).flip(1), (n - back_DM.shape[1], 0))
    if skip_D is not None:
        ring_Dn = ring_Dn + pad(skip_D.to(dtype)[:, None], (0, n - 1))
    return ring_Dn


def unring(
    dring_Dn: Tensor, dinput_BED: Tensor, inputs: Inputs, S: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs from those of the ring and of the joined input; what was trimmed gets zeros."""
    u_BTD, k_DL, back_DM, skip_D, before_BSD = inputs
    T, n = u_BTD.shape[1], dring_Dn.shape[1]
    L = min(k_DL.shape[1], S + T)
    dk_DL = pad(dring_Dn[:, :L], (0, k_DL.shape[1] - L)).to(k_DL.dtype)
    # An op's outputs may not share memory, and an empty one is a function of the inputs too.
    dback_DM, dskip_D, dbefore_BSD = (dring_Dn[:0, 0].to(u_BTD.dtype, copy=True) for _ in range(3))
    if back_DM is not None:
        M = min(back_DM.shape[1], max(T - 1, 0))
        dback_DM = pad(dring_Dn[:, n - M :].flip(1), (0, back_DM.shape[1] - M)).to(back_DM.dtype)
    if skip_D is not None:
        dskip_D = dring_Dn[:, 0].to(skip_D.dtype, copy=True)
    if before_BSD is not None:
        dbefore_BSD = pad(dinput_BED[:, :S], (0, 0, before_BSD.shape[1] - S, 0)).to(before_BSD.dtype)
        dbefore_BSD = dbefore_BSD.contiguous()
    return dinput_BED[:, S:].to(u_BTD.dtype).contiguous(), dk_DL, dback_DM, dskip_D, dbefore_BSD


def by_fft(input_BED: Tensor, k_DL: Tensor, back_DM: Tensor | None, T: int) -> Tensor:
    """Transform, multiply, transform back, cut out the T outputs."""
    S = input_BED.shape[1] - T
    n = fft_length(T, S, k_DL, back_DM)
    kernel_DF = torch.fft.rfft(ring(k_DL, back_DM, None, n, k_DL.dtype))
    y_BDn = torch.fft.irfft(torch.fft.rfft(input_BED.transpose(1, 2), n) * kernel_DF, n)
    return y_BDn[..., S : S + T].transpose(1, 2)


def direct(input_BED: Tensor, k_DL: Tensor, back_DM: Tensor | None, T: int) -> Tensor:
    """Sum over lags of shifted inputs, or over outputs of dot products with the kernel: whichever loop is shorter."""
    L, M = k_DL.shape[1], 0 if back_DM is None else back_DM.shape[1]
    taps_WD = torch.cat([k_DL.flip(1), *(() if back_DM is None else (back_DM,))], 1).T
    # Output t sees the window of W = L + M inputs that begins L - 1 before it.
    S = input_BED.shape[1] - T
    if T == 0 or not input_BED.numel():
        return input_BED[:, S:] * taps_WD.sum()  # empty, yet a function of both
    window_BD = pad(input_BED, (0, 0, L - 1 - S, M)) if L else pad(input_BED[:, S:], (0, 0, -1, M))
    if T < L + M:
        rows = [(window_BD[:, t : t + L + M] * taps_WD).sum(1) for t in range(T)]
        return torch.stack(rows, 1)
    y_BTD = torch.zeros_like(input_BED[:, S:])
    for at, tap_D in enumerate(taps_WD.unbind(0)):
        y_BTD = y_BTD + window_BD[:, at : at + T] * tap_D
    return y_BTD
