import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels._memory import fresh
from seqloom.kernels._numba import run

POINTS = 64  # of a block: its tables stay in the first-level cache, and a constant length becomes vectors
GROUP = 4  # poles that a sum takes at once, so that it is loaded and stored a quarter as often
FAR = 1e30  # where spare poles and points lie: 0 times an infinite quotient would be no 0
KINDS = (torch.complex64, torch.complex128)


def refuses(*inputs: Tensor) -> str | None:
    """Serves the sum (z, w, v) and its adjoint (df, z, w, v)."""
    z_J, w_DN, v_RDN = inputs[-3:]
    if any(x.dtype not in KINDS for x in inputs):
        return "the inputs are not all complex64 or complex128"
    if z_J.ndim != 1 or w_DN.ndim != 2 or v_RDN.ndim < 2 or v_RDN.shape[-2:] != w_DN.shape:
        return "the shapes are not (J,), (D, N) and (..., D, N)"
    return None


def forward(z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> Tensor:
    f_RDJ = fresh((*v_RDN.shape[:-1], len(z_J)), v_RDN)
    if not f_RDJ.numel():
        return f_RDJ
    spare = (0, -w_DN.shape[1] % GROUP)
    w_DN, v_rDN = pad(_wide(w_DN), spare, value=-FAR), pad(_wide(_rows(v_RDN)), spare)
    a_rDN, b_rDN = 2 * v_rDN.real, 2 * (v_rDN * w_DN.conj_physical()).real
    arrays = (_parts(_points(z_J)), _parts(w_DN), a_rDN.contiguous().numpy(), b_rDN.contiguous().numpy())
    run(_sums, _sums_parallel, f_RDJ.numel() * w_DN.shape[1], *arrays, torch.view_as_real(_rows(f_RDJ)).numpy())
    return f_RDJ


def backward(df_RDJ: Tensor, z_J: Tensor, w_DN: Tensor, v_RDN: Tensor) -> tuple[Tensor, Tensor]:
    df_rDJ = _rows(df_RDJ.detach().resolve_conj().contiguous())
    m_2rDN = torch.zeros(2, len(df_rDJ), *w_DN.shape, dtype=torch.complex128)
    arrays = (torch.view_as_real(df_rDJ).numpy(), _parts(_points(z_J)), _parts(_wide(w_DN)))
    run(_adjoint, _adjoint_parallel, df_RDJ.numel() * w_DN.shape[1], *arrays, torch.view_as_real(m_2rDN).numpy())
    dw_DN = (_wide(_rows(v_RDN)) * m_2rDN[1]).sum(0).conj_physical()
    return dw_DN.to(w_DN.dtype), m_2rDN[0].conj_physical().to(v_RDN.dtype, copy=True).view(v_RDN.shape)


FORWARDS = {"cauchy": forward, "cauchy_backward": backward}


def _rows(x_RDX: Tensor) -> Tensor:
    return x_RDX.flatten(0, -3) if x_RDX.ndim > 2 else x_RDX[None]


def _wide(x: Tensor) -> Tensor:
    # nowhere here x.conj(): in an op that a compiled graph calls nobody resolves its lazy bit
    return x.detach().to(torch.complex128).resolve_conj()


def _points(z_J: Tensor) -> Tensor:
    """Whole blocks; what follows the last point is not used, and far from every pole."""
    return pad(_wide(z_J), (0, -len(z_J) % POINTS), value=FAR)


def _parts(x: Tensor) -> np.ndarray:
    """Real parts, then imaginary parts, each contiguous."""
    return torch.stack([x.real, x.imag]).numpy()


def _sums_body(z, w, a, b, f):
    R, D, J, _ = f.shape
    blocks = (J + POINTS - 1) // POINTS
    for piece in numba.prange(D * blocks):
        d, begin = piece // blocks, piece % blocks * POINTS
        q = np.empty((2 * GROUP, POINTS))
        total = np.zeros((R, 4, POINTS))
        for first in range(0, w.shape[2], GROUP):
            for at in range(GROUP):
                real, imaginary = w[0, d, first + at], w[1, d, first + at]
                for j in range(POINTS):
                    side, height = z[0, begin + j] - real, z[1, begin + j]
                    below, above = height - imaginary, height + imaginary
                    m_real, m_imag = side * side - below * above, side * (below + above)
                    inverse = 1.0 / (m_real * m_real + m_imag * m_imag)
                    q[at, j] = m_real * inverse
                    q[GROUP + at, j] = -m_imag * inverse
            for r in range(R):
                a0, a1, a2, a3 = a[r, d, first], a[r, d, first + 1], a[r, d, first + 2], a[r, d, first + 3]
                b0, b1, b2, b3 = b[r, d, first], b[r, d, first + 1], b[r, d, first + 2], b[r, d, first + 3]
                for j in range(POINTS):
                    x0, x1, x2, x3 = q[0, j], q[1, j], q[2, j], q[3, j]
                    y0, y1, y2, y3 = q[4, j], q[5, j], q[6, j], q[7, j]
                    total[r, 0, j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                    total[r, 1, j] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3
                    total[r, 2, j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                    total[r, 3, j] += b0 * y0 + b1 * y1 + b2 * y2 + b3 * y3
        for r in range(R):
            for j in range(min(POINTS, J - begin)):
                side, height = z[0, begin + j], z[1, begin + j]
                f[r, d, begin + j, 0] = side * total[r, 0, j] - height * total[r, 1, j] - total[r, 2, j]
                f[r, d, begin + j, 1] = side * total[r, 1, j] + height * total[r, 0, j] - total[r, 3, j]


def _adjoint_body(df, z, w, m):
    R, D, J, _ = df.shape
    for d in numba.prange(D):
        g = np.zeros((R, 2, POINTS))
        p = np.empty((8, POINTS))
        for begin in range(0, J, POINTS):
            there = min(POINTS, J - begin)
            for r in range(R):
                for j in range(there):
                    g[r, 0, j], g[r, 1, j] = df[r, d, begin + j, 0], df[r, d, begin + j, 1]
                for j in range(there, POINTS):
                    g[r, 0, j] = g[r, 1, j] = 0.0
            for n in range(w.shape[2]):
                real, imaginary = w[0, d, n], w[1, d, n]
                for j in range(POINTS):
                    side, height = z[0, begin + j] - real, z[1, begin + j]
                    above, below = height - imaginary, -height - imaginary
                    x, y = side * side + below * below, side * side + above * above
                    inverse = 1.0 / (x * y)
                    x, y = x * inverse, y * inverse
                    p_real, p_imag, c_real, c_imag = side * x, -above * x, side * y, -below * y
                    p2_real, p2_imag = p_real * p_real - p_imag * p_imag, 2 * p_real * p_imag
                    c2_real, c2_imag = c_real * c_real - c_imag * c_imag, 2 * c_real * c_imag
                    p[0, j], p[1, j] = p_real + c_real, p_imag + c_imag
                    p[2, j], p[3, j] = p_imag - c_imag, c_real - p_real
                    p[4, j], p[5, j] = p2_real + c2_real, p2_imag + c2_imag
                    p[6, j], p[7, j] = p2_imag - c2_imag, c2_real - p2_real
                for r in range(R):
                    one_real = one_imag = two_real = two_imag = 0.0
                    for j in range(POINTS):
                        g_real, g_imag = g[r, 0, j], g[r, 1, j]
                        one_real += g_real * p[0, j] + g_imag * p[2, j]
                        one_imag += g_real * p[1, j] + g_imag * p[3, j]
                        two_real += g_real * p[4, j] + g_imag * p[6, j]
                        two_imag += g_real * p[5, j] + g_imag * p[7, j]
                    m[0, r, d, n, 0] += one_real
                    m[0, r, d, n, 1] += one_imag
                    m[1, r, d, n, 0] += two_real
                    m[1, r, d, n, 1] += two_imag


def _compiled(body, parallel):
    # sums over points become vectors only where their order may change; error_model: x / 0 is no exception
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}, parallel=parallel)(
        body
    )


_sums, _sums_parallel = _compiled(_sums_body, False), _compiled(_sums_body, True)
_adjoint, _adjoint_parallel = _compiled(_adjoint_body, False), _compiled(_adjoint_body, True)
