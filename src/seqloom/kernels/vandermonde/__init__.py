"""Sums of complex exponentials over a whole sequence: the kernel of every diagonal state-space model.

    k_l = Re sum_n c_n a_n^l    l = 0 .. L - 1    a_n = exp(log a_n)
    transposed:  m_n = sum_l g_l a_n^l

One term a mode and **no factor 2**: a model that stores one mode of each conjugate pair passes 2 c.

The (N, L) matrix of powers never exists. With l = i J + j and J about sqrt(L) it factors into two tables,

    k_{iJ+j} = Re sum_n (c_n a_n^{iJ}) a_n^j ,

of N sqrt(L) numbers each, and their product is one real matrix product of 2 N multiply-adds an output: the real part
of z w is the dot product of (Re z, -Im z) and (Re w, Im w). Memory is O(N sqrt(L)) + O(L) a channel, backward too.

Powers are taken in float64 from log a, so that a phase of thousands of turns is still right to float32.
Shapes: D channels, N modes, L length, I x J the tables' lengths, R any rows in front (batch, directions; may be none).
Source: Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", 2022,
arXiv:2206.11893, section 3.3 (the sum); the factorisation is ours.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.core import counting
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.vandermonde._tables import split


@kernel
def vandermonde(log_a_DN: Tensor, c_RDN: Tensor, length: int) -> Tensor:
    """Return k (R, D, L), real. Both inputs are complex; the precision of c is that of the result.

    ``log_a_DN`` may be complex128 beside a complex64 c, and should be: its rounding is multiplied by the length.
    """
    _check(log_a_DN, c_RDN)
    high_DIN, low_DJN = _two_levels(log_a_DN, length, c_RDN.dtype)
    scaled_RDIN = c_RDN[..., None, :] * high_DIN
    k_RDIJ = scaled_RDIN.real @ low_DJN.real.mT - scaled_RDIN.imag @ low_DJN.imag.mT
    return k_RDIJ.flatten(-2)[..., :length].contiguous()


@kernel
def vandermonde_transposed(log_a_DN: Tensor, g_RDL: Tensor) -> Tensor:
    """Return m (R, D, N), complex, of real g: the adjoint in c up to conjugation, and the last state of a recurrence.

    With g the inputs in reverse order m is sum_t a^{T-1-t} u_t.
    """
    _check(log_a_DN, g_RDL)
    high_DIN, low_DJN = _two_levels(log_a_DN, g_RDL.shape[-1], torch.promote_types(g_RDL.dtype, torch.complex64))
    (I, _), J = high_DIN.shape[-2:], low_DJN.shape[-2]
    g_RDIJ = torch.nn.functional.pad(g_RDL, (0, I * J - g_RDL.shape[-1])).unflatten(-1, (I, J))
    part_RDIN = torch.complex(g_RDIJ @ low_DJN.real, g_RDIJ @ low_DJN.imag)
    return (high_DIN * part_RDIN).sum(-2)


def _two_levels(log_a_DN: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """a^{iJ} (D, I, N) and a^j (D, J, N), each power from log a itself."""
    I, J = split(length)
    log_a_D1N = log_a_DN.to(torch.complex128)[:, None]
    i_I1, j_J1 = (torch.arange(count, device=log_a_DN.device)[:, None] for count in (I, J))
    return (J * i_I1 * log_a_D1N).exp().to(dtype), (j_J1 * log_a_D1N).exp().to(dtype)


def _check(log_a_DN: Tensor, other_RDX: Tensor) -> None:
    if not log_a_DN.is_complex() or log_a_DN.ndim != 2:
        raise ConfigError(f"vandermonde expects complex log a (D, N), not {log_a_DN.dtype} {tuple(log_a_DN.shape)}")
    if other_RDX.ndim < 2 or other_RDX.shape[-2] != len(log_a_DN):
        raise ConfigError(f"vandermonde expects (..., {len(log_a_DN)}, ...) beside log a, not {tuple(other_RDX.shape)}")


@vandermonde.shapes
def shapes(log_a_DN: Tensor, c_RDN: Tensor, length: int) -> Tensor:
    return c_RDN.new_empty((*c_RDN.shape[:-1], length), dtype=c_RDN.dtype.to_real())


@vandermonde_transposed.shapes
def transposed_shapes(log_a_DN: Tensor, g_RDL: Tensor) -> Tensor:
    return g_RDL.new_empty((*g_RDL.shape[:-1], log_a_DN.shape[1]), dtype=g_RDL.dtype.to_complex())


@vandermonde.vjp(outputs=())
def backward(grads, inputs, outputs):
    (dk_RDL,), (log_a_DN, c_RDN, length) = grads, inputs
    m_2RDN = vandermonde_transposed(log_a_DN, torch.stack([dk_RDL, _ramp(dk_RDL, length)]))
    dlog_a_RDN = (c_RDN * m_2RDN[1]).conj()
    return _sum_rows(dlog_a_RDN, log_a_DN), m_2RDN[0].conj().resolve_conj(), None


@vandermonde_transposed.vjp(outputs=())
def transposed_backward(grads, inputs, outputs):
    (dm_RDN,), (log_a_DN, g_RDL) = grads, inputs
    length = g_RDL.shape[-1]
    dg_RDL = vandermonde(log_a_DN, dm_RDN.conj().resolve_conj(), length)
    dlog_a_RDN = dm_RDN * vandermonde_transposed(log_a_DN, _ramp(g_RDL, length)).conj()
    return _sum_rows(dlog_a_RDN, log_a_DN), dg_RDL


def _ramp(g_RDL: Tensor, length: int) -> Tensor:
    """L g_l: the derivative of a^l by log a is l a^l."""
    return g_RDL * torch.arange(length, device=g_RDL.device, dtype=g_RDL.dtype)


def _sum_rows(x_RDN: Tensor, like_DN: Tensor) -> Tensor:
    return x_RDN.reshape(-1, *like_DN.shape).sum(0).to(like_DN.dtype).resolve_conj()


@vandermonde.cost
def cost(log_a_DN: Tensor, c_RDN: Tensor, length: int) -> Cost:
    outputs = c_RDN[..., 0].numel() * length
    size = c_RDN.element_size() // 2
    return Cost(macs=2 * log_a_DN.shape[1] * outputs, bytes=log_a_DN.nbytes + c_RDN.nbytes + outputs * size)


@vandermonde_transposed.cost
def transposed_cost(log_a_DN: Tensor, g_RDL: Tensor) -> Cost:
    N = log_a_DN.shape[1]
    results = g_RDL[..., :1].numel() * N * 2 * g_RDL.element_size()
    return Cost(macs=2 * N * g_RDL.numel(), bytes=log_a_DN.nbytes + g_RDL.nbytes + results)


@vandermonde.cases
def cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | int, ...]]:
    """Smallest first, a length of nothing, prime lengths, rows in front."""
    for (D, N, L), rows in zip(_SIZES, _ROWS, strict=True):
        c_RDN = torch.randn(*rows, D, N, generator=rng, dtype=dtype.to_complex())
        yield _decaying(D, N, rng, dtype), c_RDN, L


@vandermonde_transposed.cases
def transposed_cases(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    for (D, N, L), rows in zip(_SIZES, _ROWS, strict=True):
        yield _decaying(D, N, rng, dtype), torch.randn(*rows, D, L, generator=rng, dtype=dtype)


_SIZES = ((1, 1, 1), (2, 3, 0), (2, 3, 4), (3, 2, 5), (2, 5, 37), (3, 16, 64))
_ROWS = ((), (), (0,), (1,), (2,), (3, 2))


def _decaying(D: int, N: int, rng: torch.Generator, dtype: torch.dtype) -> Tensor:
    real, imaginary = torch.rand(2, D, N, generator=rng, dtype=dtype)
    return torch.complex(-0.2 * real, 3 * imaginary)


@counting.addend("seqloom::vandermonde")
def _macs(args: tuple[Any, ...], out: Tensor) -> int:
    return vandermonde.floor(*args).macs


@counting.addend("seqloom::vandermonde_transposed")
def _transposed_macs(args: tuple[Any, ...], out: Tensor) -> int:
    return vandermonde_transposed.floor(*args).macs
