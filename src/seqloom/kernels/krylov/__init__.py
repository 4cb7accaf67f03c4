"""Powers of a matrix on vectors: every state that a dense linear system reaches, read out or not.

    krylov            X_l = A^l b                      l = 0 .. L - 1
    krylov_readout    k_l = c A^l b
    krylov_carry      h'  = A^n h + sum_{t < n} A^{n-1-t} b u_t        n the length of a row

The columns double, (X, A^m X) for X of m columns, and the power squares: ceil(log2 L) products instead of L, at
N^2 L + N^3 log2 L multiply-adds and N L numbers a channel. Read out, the N L numbers never exist: with l = i J + j

    k_{iJ+j} = (c A^{iJ}) (A^j b) ,

J columns by doubling, I = ceil(L / J) rows one product after another, and the power A^J between them; J is chosen by
the work, of which squaring is the larger part. A kernel costs N^3 log2 J + N^2 (I + J) + N L and keeps N (I + J).

Arithmetic is in the dtype of A; powers of a memory's matrix need float64.
Shapes: D channels, N state size, S start vectors, M readouts, B rows, L length, I x J as above.
Source: Gu, Johnson, Goel, Saab, Dao, Rudra, Ré, "Combining recurrent, convolutional, and continuous-time models with
linear state-space layers", 2021, arXiv:2110.13985, section 5.3 and appendix C (doubling); Paterson and Stockmeyer, 1973
(two levels).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.core.layout import roll
from seqloom.kernels._kernel import Cost, kernel

FEW = 8
"""A product with fewer rows than this takes the time that reading the matrix takes."""


@kernel
def krylov(A_DNN: Tensor, b_DNS: Tensor, length: int) -> Tensor:
    """Return X (D, N, L, S): the start vectors and what the matrix makes of them."""
    _check(A_DNN, b_DNS)
    X_DNLS, power_DNN = b_DNS[:, :, None], A_DNN
    while X_DNLS.shape[2] < length:
        new_DNLS = _times(power_DNN, X_DNLS[:, :, : length - X_DNLS.shape[2]])
        X_DNLS = torch.cat([X_DNLS, new_DNLS], 2)
        if X_DNLS.shape[2] < length:
            power_DNN = power_DNN @ power_DNN
    return X_DNLS[:, :, :length].clone(memory_format=torch.contiguous_format)


@kernel
def krylov_readout(A_DNN: Tensor, b_DNS: Tensor, c_DMN: Tensor, length: int) -> Tensor:
    """Return k (D, M, S, L), real: the same read out, without the columns in between."""
    _check(A_DNN, b_DNS)
    I, J = split(A_DNN.shape[1], b_DNS.shape[2], max(c_DMN.shape[1], FEW), length)
    X_DNJS, power_DNN = _columns(A_DNN, b_DNS, J)
    rows = [c_DMN]
    while len(rows) < I:
        rows.append(rows[-1] @ power_DNN)
    k_DXY = torch.cat(rows, 1) @ X_DNJS.flatten(2)
    k_DIMJS = k_DXY.unflatten(2, X_DNJS.shape[2:]).unflatten(1, (I, c_DMN.shape[1]))
    return k_DIMJS.permute(0, 2, 4, 1, 3).flatten(3)[..., :length].contiguous()


@kernel
def krylov_carry(A_DNN: Tensor, b_DN: Tensor, u_BLD: Tensor, h_DNB: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    """Return h' (D, N, B): each row's state after its own last input, by powers that are never undone.

    Args:
        A_DNN: transition of a step.
        b_DN: what an input adds.
        u_BLD: inputs, zeros behind the last one of a row.
        h_DNB: states before the first input.
        lengths_B: inputs of each row; None = all of them.
    """
    _check(A_DNN, h_DNB)
    B, L, D = u_BLD.shape
    J = split(A_DNN.shape[1], 1 + B, max(B, FEW), L)[1]
    I = L // J + 1  # a state that lies L steps before the end is A^L h
    X_DNJS, power_DNN = _columns(A_DNN, torch.cat([b_DN[..., None], h_DNB], 2), J)
    last_first_BLD = (u_BLD if lengths_B is None else roll(u_BLD, lengths_B)).flip(1)
    v_BIJD = pad(last_first_BLD, (0, 0, 0, I * J - L)).unflatten(1, (I, J))
    z_DNIB = (X_DNJS[..., 0] @ v_BIJD.permute(3, 2, 1, 0).flatten(2)).unflatten(2, (I, B))
    count_B = torch.full((B,), L, device=u_BLD.device) if lengths_B is None else lengths_B
    at_DN1B = (count_B % J).expand(D, h_DNB.shape[1], 1, B)
    here_IB = torch.arange(I, device=u_BLD.device)[:, None] == count_B // J
    z_DNIB = z_DNIB + torch.where(here_IB, X_DNJS[..., 1:].gather(2, at_DN1B), 0)
    total_DNB, *earlier = z_DNIB.flip(2).unbind(2)
    for z_DNB in earlier:
        total_DNB = power_DNN @ total_DNB + z_DNB
    return total_DNB.clone(memory_format=torch.contiguous_format)


def split(N: int, starts: int, rows: int, length: int) -> tuple[int, int]:
    """I rows and J columns, a power of two, of least work: log2 J squarings, J columns, I rows."""
    choices = [1 << k for k in range(max(length - 1, 1).bit_length() + 1)]
    J = min(choices, key=lambda J: N * (J.bit_length() - 1) + starts * J + rows * -(-length // J))
    return max(-(-length // J), 1), J


def _columns(A_DNN: Tensor, b_DNS: Tensor, J: int) -> tuple[Tensor, Tensor]:
    """A^j b for j < J, a power of two, and A^J."""
    X_DNJS, power_DNN = b_DNS[:, :, None], A_DNN
    while X_DNJS.shape[2] < J:
        X_DNJS = torch.cat([X_DNJS, _times(power_DNN, X_DNJS)], 2)
        power_DNN = power_DNN @ power_DNN
    return X_DNJS, power_DNN


def _times(A_DNN: Tensor, X_DNLS: Tensor) -> Tensor:
    return (A_DNN @ X_DNLS.flatten(2)).unflatten(2, X_DNLS.shape[2:])


def _check(A_DNN: Tensor, b_DNS: Tensor) -> None:
    if A_DNN.ndim != 3 or A_DNN.shape[1] != A_DNN.shape[2] or b_DNS.ndim != 3 or b_DNS.shape[:2] != A_DNN.shape[:2]:
        raise ConfigError(
            f"krylov expects A (D, N, N) and vectors (D, N, S), not {tuple(A_DNN.shape)} and {tuple(b_DNS.shape)}"
        )


@krylov.cost
def cost(A_DNN: Tensor, b_DNS: Tensor, length: int) -> Cost:
    D, N, S = b_DNS.shape
    squarings = max((length - 1).bit_length() - 1, 0) if length > 1 else 0
    macs = D * N * N * (S * max(length - 1, 0) + N * squarings)
    return Cost(macs, A_DNN.nbytes + b_DNS.nbytes * (1 + length))


@krylov_readout.cost
def readout_cost(A_DNN: Tensor, b_DNS: Tensor, c_DMN: Tensor, length: int) -> Cost:
    (D, N, S), M = b_DNS.shape, c_DMN.shape[1]
    I, J = split(N, S, max(M, FEW), length)
    table = _columns_macs(N, S, J) + N * N * M * (I - 1)
    outputs = D * M * S * length * A_DNN.element_size()
    return Cost(D * (table + N * M * I * S * J), A_DNN.nbytes + b_DNS.nbytes + c_DMN.nbytes + outputs)


@krylov_carry.cost
def carry_cost(A_DNN: Tensor, b_DN: Tensor, u_BLD: Tensor, h_DNB: Tensor, lengths_B: Tensor | None = None) -> Cost:
    (B, L, D), N = u_BLD.shape, b_DN.shape[1]
    J = split(N, 1 + B, max(B, FEW), L)[1]
    I = L // J + 1
    macs = D * (_columns_macs(N, 1 + B, J) + N * I * J * B + N * N * B * (I - 1))
    return Cost(macs, A_DNN.nbytes + b_DN.nbytes + u_BLD.nbytes + 2 * h_DNB.nbytes)


def _columns_macs(N: int, starts: int, J: int) -> int:
    return N * N * (starts * (J - 1) + N * (J.bit_length() - 1))


@krylov.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | int, ...]]:
    """Smallest first: no length, one, two, odd, prime, a power of two and one more."""
    for (D, N, S), length in zip(_SIZES, _LENGTHS, strict=True):
        yield _contraction(D, N, rng, dtype), torch.randn(D, N, S, generator=rng, dtype=dtype), length


@krylov_readout.cases
def readout_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | int, ...]]:
    for (D, N, S), length in zip(_SIZES, _LENGTHS, strict=True):
        b_DNS, c_DMN = (torch.randn(D, *sides, generator=rng, dtype=dtype) for sides in ((N, S), (1 + D, N)))
        yield _contraction(D, N, rng, dtype), b_DNS, c_DMN, length


@krylov_carry.cases
def carry_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    for (D, N, B), length in zip(_SIZES, _LENGTHS, strict=True):
        b_DN, u_BLD, h_DNB = (
            torch.randn(sides, generator=rng, dtype=dtype) for sides in ((D, N), (B, length, D), (D, N, B))
        )
        lengths_B = torch.arange(B) * length // max(B - 1, 1) if B > 1 else None
        if lengths_B is not None:
            u_BLD = u_BLD * (torch.arange(length)[:, None] < lengths_B[:, None, None])
        yield _contraction(D, N, rng, dtype), b_DN, u_BLD, h_DNB, lengths_B


_SIZES = ((1, 1, 1), (2, 3, 2), (2, 4, 0), (3, 2, 1), (1, 5, 3), (2, 4, 2), (2, 16, 1), (2, 8, 2))
_LENGTHS = (1, 5, 3, 0, 2, 37, 64, 65)


def _contraction(D: int, N: int, rng: torch.Generator, dtype: torch.dtype) -> Tensor:
    A_DNN = torch.randn(D, N, N, generator=rng, dtype=dtype)
    return 0.98 * A_DNN / torch.linalg.matrix_norm(A_DNN, 2, keepdim=True)
