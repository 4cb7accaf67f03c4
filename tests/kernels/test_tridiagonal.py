"""The solve against scipy's banded solver and dense numpy, with zeros where a plain elimination divides."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.tridiagonal import tridiagonal

linalg = pytest.importorskip("scipy.linalg")
BACKENDS = ["reference", "numba_cpu"]
CASES = [case for case in tridiagonal.generate(torch.Generator().manual_seed(0), torch.float64) if case[3].numel()]


def dense(lower: torch.Tensor, diagonal: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    return torch.diag_embed(lower, -1) + torch.diag_embed(diagonal) + torch.diag_embed(upper, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(tuple(case[3].shape)))
def test_equals_scipy(backend: str, case: tuple[torch.Tensor, ...]) -> None:
    lower, diagonal, upper, y = case
    with use_backend(backend):
        got = tridiagonal(*case)
    for d in range(len(y)):
        bands = np.zeros((3, diagonal.shape[1]))
        bands[0, 1:], bands[1], bands[2, :-1] = upper[d], diagonal[d], lower[d]
        want = linalg.solve_banded((1, 1), bands, y[d].numpy())
        assert_close(got[d].numpy(), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_dense_solve(backend: str) -> None:
    leaves = [x.clone().requires_grad_() for x in CASES[1]]
    weight = torch.randn_like(leaves[3])
    want = torch.autograd.grad((torch.linalg.solve(dense(*leaves[:3]), leaves[3]) * weight).sum(), leaves)
    with use_backend(backend):
        got = torch.autograd.grad((tridiagonal(*leaves) * weight).sum(), leaves)
    assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_diagonal_at_all(backend: str) -> None:
    """An even number of rows with zeros on the diagonal is regular; elimination without exchanges divides by zero."""
    beside, diagonal = torch.ones(1, 5, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64)
    y = torch.randn(1, 6, 2, dtype=torch.float64)
    with use_backend(backend):
        assert_close(tridiagonal(beside, diagonal, -beside, y), torch.linalg.solve(dense(beside, diagonal, -beside), y))


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_pivots_cost_no_digits(backend: str) -> None:
    lower, upper = (torch.rand(4, 40, dtype=torch.float64) + 1 for _ in range(2))
    diagonal, y = 1e-12 * torch.rand(4, 41, dtype=torch.float64), torch.randn(4, 41, 3, dtype=torch.float64)
    diagonal[:, 0] = diagonal[:, -1] = 1
    with use_backend(backend):
        x = tridiagonal(lower, diagonal, -upper, y)
    assert_close(dense(lower, diagonal, -upper) @ x, y, rtol=1e-10, atol=1e-10 * float(x.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_singular_matrix_gives_no_number(backend: str) -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    with use_backend(backend):
        assert not torch.isfinite(
            tridiagonal(zero, torch.zeros(1, 3).double(), zero, torch.ones(1, 3, 1).double())
        ).any()


def test_wrong_shapes_are_refused() -> None:
    lower, diagonal, upper, y = CASES[1]
    with pytest.raises(ConfigError, match="beside"):
        tridiagonal.reference(diagonal, diagonal, upper, y)
    with pytest.raises(ConfigError, match="rows of y"):
        tridiagonal.reference(lower, diagonal, upper, y[:, 1:])


def test_work_is_linear_in_the_rows() -> None:
    sizes = [
        tridiagonal.floor(torch.ones(2, n - 1), torch.ones(2, n), torch.ones(2, n - 1), torch.ones(2, n, 3)).macs
        for n in (50, 100)
    ]
    assert sizes[1] == 2 * sizes[0]
