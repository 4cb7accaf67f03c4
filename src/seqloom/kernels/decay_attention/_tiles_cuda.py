"""What the Triton kernels share: where a program stands, how decays are loaded, what lies between two positions.

L steps of a chunk, S of a piece of it. Decays that forget are -inf: sums of them are only ever added, never subtracted.
Imported by the Triton backend alone.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(x_ptr, b, h, t, c, T, heads, width, inside):
    """A (steps, channels) tile of a (B, T, heads, width) tensor; 0 outside."""
    at = ((b * T + t[:, None]) * heads + h) * width + c[None, :]
    return tl.load(x_ptr + at, mask=inside[:, None] & (c < width)[None, :], other=0.0)


@triton.jit
def store_rows(x_ptr, x, b, h, t, c, T, heads, width, inside):
    at = ((b * T + t[:, None]) * heads + h) * width + c[None, :]
    tl.store(x_ptr + at, x, mask=inside[:, None] & (c < width)[None, :])


@triton.jit
def load_state(s_ptr, place, c, d, K, V):
    """A (key, value) tile of the state at ``place``."""
    at = (place * K + c[:, None]) * V + d[None, :]
    return tl.load(s_ptr + at, mask=(c < K)[:, None] & (d < V)[None, :], other=0.0)


@triton.jit
def store_state(s_ptr, s, place, c, d, K, V):
    at = (place * K + c[:, None]) * V + d[None, :]
    tl.store(s_ptr + at, s, mask=(c < K)[:, None] & (d < V)[None, :])


@triton.jit
def load_flags(forgets_ptr, b, t, T, inside):
    """1 where the past is forgotten; None as a pointer means nowhere."""
    if forgets_ptr is None:
        flags = tl.zeros_like(t).to(tl.int32)
    else:
        flags = tl.load(forgets_ptr + b * T + t, mask=inside, other=0).to(tl.int32)
    return flags


@triton.jit
def head_decays(a_ptr, b, h, t, T, H, inside, CONSTANT: tl.constexpr, WIDE: tl.constexpr):
    """Log-decays of a head, 0 outside, whatever is forgotten."""
    at = 0 * t + h if CONSTANT else (b * T + t) * H + h
    return tl.load(a_ptr + at, mask=inside, other=0.0).to(WIDE)


@triton.jit
def decays(
    a_ptr, forgets_ptr, b, h, t, c, T, H, K, inside, CHANNEL: tl.constexpr, CONSTANT: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Log-decays as (steps, channels), or (steps, 1) where a head has one; -inf where the past is forgotten."""
    flags = load_flags(forgets_ptr, b, t, T, inside)
    if CHANNEL:
        at = 0 * t + h if CONSTANT else (b * T + t) * H + h
        a = tl.load(
            a_ptr + at[:, None] * K + c[None, :], mask=inside[:, None] & (c < K)[None, :], other=0.0
        ).to(WIDE)  # fmt: skip
        result = tl.where((flags > 0)[:, None], float("-inf"), a)
    else:
        a = head_decays(a_ptr, b, h, t, T, H, inside, CONSTANT, WIDE)
        result = tl.where(flags > 0, float("-inf"), a)[:, None]
    return result


@triton.jit
def span_decays(a_ptr, forgets_ptr, b, h, t, T, H, inside, CONSTANT: tl.constexpr, WIDE: tl.constexpr):
    """exp(sum of the log-decays after s up to t) for t >= s of one segment, else 0; one decay a head.

    The running sum is kept in two parts: its differences lose nothing, however large the decays before them.
    """
    a = head_decays(a_ptr, b, h, t, T, H, inside, CONSTANT, WIDE)
    number = tl.cumsum(load_flags(forgets_ptr, b, t, T, inside), 0)
    whole = tl.cumsum(tl.where(load_flags(forgets_ptr, b, t, T, inside) > 0, 0.0, a.to(tl.float64)), 0)
    high = whole.to(WIDE)
    low = (whole - high.to(tl.float64)).to(WIDE)
    between = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    seen = (t[:, None] >= t[None, :]) & (number[:, None] == number[None, :])
    return tl.where(seen, tl.exp(tl.where(seen, between, 0.0)), 0.0)
