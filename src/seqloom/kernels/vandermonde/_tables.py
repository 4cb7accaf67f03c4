"""The two tables of powers by doubling, and the products with them.

    a^{m} .. a^{2m-1} = a^m (a^0 .. a^{m-1})

Only a^1, a^2, a^4 .. are exponentials (of float64 arguments); every other power is one complex product away from a
power of half its size, so that its error is that of log2(sqrt(L)) products, and a table costs no more than writing it.
Real and imaginary parts stay interleaved: the conjugate of one table times the other is a real dot product. Powers
that have decayed to nothing are made zeros: as denormal numbers they slow the products of 512 modes of GSS ten times.
Shapes: as in the kernel's ``__init__``; X = 2 N interleaved parts.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def split(length: int, rows: int = 1) -> tuple[int, int]:
    """Lengths I and J of the tables: J the power of two at sqrt(rows L) or above, I J >= L.

    The table of I is multiplied into every row, so that it is the shorter one where there are many.
    """
    J = 1 << min((max(length * rows, 1) - 1).bit_length() + 1, 2 * (max(length, 1) - 1).bit_length()) // 2
    return -(-length // J), J


def forward(log_a_DN: Tensor, c_RDN: Tensor, length: int) -> Tensor:
    """``vandermonde`` by doubled tables."""
    D, N = log_a_DN.shape
    I, J = split(length, c_RDN[..., 0, 0].numel())
    log_a_DN = log_a_DN.to(torch.complex128)
    c_DrN = c_RDN.detach().resolve_conj().reshape(-1, D, N).transpose(0, 1)
    high_DIN = _powers((J * log_a_DN).conj().resolve_conj(), I, c_RDN.dtype)
    low_DJX = _parts(_powers(log_a_DN, J, c_RDN.dtype))
    scaled_DrIN = c_DrN.conj().resolve_conj()[:, :, None] * high_DIN[:, None]
    k_DrIJ = torch.bmm(_parts(scaled_DrIN).flatten(1, 2), low_DJX.mT)
    k_rDL = k_DrIJ.view(D, -1, I * J)[..., :length].transpose(0, 1)
    return k_rDL.contiguous().view(*c_RDN.shape[:-1], length)


def transposed(log_a_DN: Tensor, g_RDL: Tensor) -> Tensor:
    """``vandermonde_transposed`` by doubled tables."""
    (D, N), length = log_a_DN.shape, g_RDL.shape[-1]
    I, J = split(length, g_RDL[..., 0, 0].numel())
    dtype = g_RDL.dtype.to_complex()
    log_a_DN = log_a_DN.to(torch.complex128)
    g_DrL = g_RDL.detach().reshape(-1, D, length).transpose(0, 1)
    low_DJX = _parts(_powers(log_a_DN, J, dtype))
    part_DsX = torch.bmm(pad(g_DrL, (0, I * J - length)).reshape(D, -1, J), low_DJX)
    part_DrIN = torch.view_as_complex(part_DsX.view(D, -1, I, N, 2))
    m_DrN = (part_DrIN * _powers(J * log_a_DN, I, dtype)[:, None]).sum(2)
    return m_DrN.transpose(0, 1).contiguous().view(*g_RDL.shape[:-1], N)


def refuses(log_a_DN: Tensor, other_RDX: Tensor, length: int | None = None) -> str | None:
    """Only what no table can be made of."""
    if length == 0 or not other_RDX.numel():
        return "nothing to sum"
    if not log_a_DN.is_complex() or log_a_DN.ndim != 2 or other_RDX.ndim < 2 or len(log_a_DN) != other_RDX.shape[-2]:
        return "the shapes are not (D, N) and (..., D, ...)"
    return None


def _powers(log_a_DN: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """a^0 .. a^{count-1} (D, count, N)."""
    D, N = log_a_DN.shape
    table_DMN = log_a_DN.new_empty(D, count, N, dtype=dtype)
    table_DMN[:, 0] = 1
    done = 1
    while done < count:
        more = min(done, count - done)
        factor_D1N = (done * log_a_DN).exp().to(dtype)[:, None]
        torch.mul(table_DMN[:, :more], factor_D1N, out=table_DMN[:, done : done + more])
        done += more
    limits = torch.finfo(dtype)
    least = limits.tiny / limits.eps
    if count * float(log_a_DN.real.min()) < math.log(least):
        table_DMN = torch.view_as_complex(torch.hardshrink(torch.view_as_real(table_DMN), least))
    return table_DMN


def _parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z).flatten(-2)
