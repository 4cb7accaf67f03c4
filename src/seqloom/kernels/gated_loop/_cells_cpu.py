"""One step of 16 units of each cell, forwards and back, and the functions that it is made of."""

import math

import numba
import numpy as np
from numba.extending import overload

from seqloom.kernels._numba import exp

UNITS = 16
"""Of a tile; their four gates lie one behind the other, and so do the tensors of the state."""


def _tanh(x):
    return math.tanh(x)


@overload(_tanh, jit_options={"error_model": "numpy"})
def _tanh_of(x):
    return _tanh_float32 if x == numba.types.float32 else _tanh_float64


def _tanh_float64(x):
    return math.tanh(x)


def _tanh_float32(x):
    """By exponentials, and near 0, where those cancel, by its series: Chebyshev's economy of six terms."""
    size = abs(x)
    e = exp(np.float32(-2) * size)
    far = math.copysign((np.float32(1) - e) / (np.float32(1) + e), x)
    q = x * x
    near = np.float32(-5.70498872745e-3) * q + np.float32(2.06390887954e-2)
    near = near * q + np.float32(-5.37397155531e-2)
    near = near * q + np.float32(1.33314422036e-1)
    near = near * q + np.float32(-3.33332819422e-1)
    return near * q * x + x if size < np.float32(0.625) else far


def _log1p(x):
    return math.log1p(x)


@overload(_log1p, jit_options={"error_model": "numpy"})
def _log1p_of(x):
    return _log1p_float32 if x == numba.types.float32 else _log1p_float64


def _log1p_float64(x):
    return math.log1p(x)


def _log1p_float32(x):
    """2 artanh(x / (2 + x)) for x in [0, 1]: the series' argument is at most 1/3, eight terms are enough."""
    s = x / (np.float32(2) + x)
    q = s * s
    total = np.float32(2 / 15) * q + np.float32(2 / 13)
    total = total * q + np.float32(2 / 11)
    total = total * q + np.float32(2 / 9)
    total = total * q + np.float32(2 / 7)
    total = total * q + np.float32(2 / 5)
    total = total * q + np.float32(2 / 3)
    return (total * q + np.float32(2)) * s


inner = numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


@inner
def _sigmoid(x, one):
    return one / (one + exp(-x))


@inner
def advance(a, s, cell):
    """One step of 16 units: gates in ``a``, the state in ``s``, which is replaced."""
    one = a.dtype.type(1)
    if cell == 0:
        for j in range(UNITS):
            c = _sigmoid(a[16 + j], one) * s[16 + j] + _sigmoid(a[j], one) * _tanh(a[32 + j])
            s[16 + j] = c
            s[j] = _sigmoid(a[48 + j], one) * _tanh(c)
    elif cell == 1:
        for j in range(UNITS):
            n = _tanh(a[48 + j] + _sigmoid(a[j], one) * a[32 + j])
            s[j] = n + _sigmoid(a[16 + j], one) * (s[j] - n)
    else:
        for j in range(UNITS):
            f = a[16 + j]
            if cell == 2:
                f = min(f, a.dtype.type(0)) - _log1p(exp(-abs(f)))
            past = s[32 + j] + f
            lead = a[j] - past
            e = exp(-abs(lead))
            share = (one if lead >= 0 else e) / (one + e)
            u = s[16 + j] + share * (_tanh(a[32 + j]) - s[16 + j])
            s[j] = _sigmoid(a[48 + j], one) * u
            s[16 + j] = u
            s[32 + j] = max(past, a[j]) + _log1p(e)


@inner
def retreat(a, s, g, cell):
    """Back over one step of 16 units: gates in ``a`` and gradients in ``g`` are replaced by those before them."""
    one = a.dtype.type(1)
    if cell == 0:
        for j in range(UNITS):
            i, f, z, o = _sigmoid(a[j], one), _sigmoid(a[16 + j], one), _tanh(a[32 + j]), _sigmoid(a[48 + j], one)
            shown = _tanh(f * s[16 + j] + i * z)
            dc = g[16 + j] + g[j] * o * (one - shown * shown)
            a[j] = dc * z * i * (one - i)
            a[16 + j] = dc * s[16 + j] * f * (one - f)
            a[32 + j] = dc * i * (one - z * z)
            a[48 + j] = g[j] * shown * o * (one - o)
            g[j] = 0
            g[16 + j] = dc * f
    elif cell == 1:
        for j in range(UNITS):
            r, z, p = _sigmoid(a[j], one), _sigmoid(a[16 + j], one), a[32 + j]
            n = _tanh(a[48 + j] + r * p)
            dn = g[j] * (one - z) * (one - n * n)
            a[j] = dn * p * r * (one - r)
            a[16 + j] = g[j] * (s[j] - n) * z * (one - z)
            a[32 + j] = dn * r
            a[48 + j] = dn
            g[j] = g[j] * z
    else:
        for j in range(UNITS):
            f, slope = a[16 + j], one
            if cell == 2:
                e = exp(-abs(f))
                slope = (e if f >= 0 else one) / (one + e)
                f = min(f, a.dtype.type(0)) - _log1p(e)
            past = s[32 + j] + f
            lead = a[j] - past
            e = exp(-abs(lead))
            share, keep = (one if lead >= 0 else e) / (one + e), (e if lead >= 0 else one) / (one + e)
            z, o = _tanh(a[32 + j]), _sigmoid(a[48 + j], one)
            du = g[16 + j] + g[j] * o
            dlead = du * (z - s[16 + j]) * share * keep
            dpast = g[32 + j] * keep - dlead
            a[j] = dlead + g[32 + j] * share
            a[16 + j] = dpast * slope
            a[32 + j] = du * share * (one - z * z)
            a[48 + j] = g[j] * (s[16 + j] + share * (z - s[16 + j])) * o * (one - o)
            g[j] = 0
            g[16 + j] = du * keep
            g[32 + j] = dpast
