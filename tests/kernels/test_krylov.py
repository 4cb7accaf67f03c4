"""Powers against numpy's one after the other, and what the two levels save, counted."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import count_macs, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels.krylov import krylov, krylov_carry, krylov_readout, split

signal = pytest.importorskip("scipy.signal")
LENGTHS = [0, 1, 2, 3, 5, 8, 16, 17, 31, 97, 256]


def draw(D: int, N: int, S: int) -> tuple[torch.Tensor, torch.Tensor]:
    A = torch.randn(D, N, N, dtype=torch.float64)
    return 0.99 * A / torch.linalg.matrix_norm(A, 2, keepdim=True), torch.randn(D, N, S, dtype=torch.float64)


def one_by_one(A: torch.Tensor, b: torch.Tensor, length: int) -> torch.Tensor:
    columns, x = [], b.numpy()
    for _ in range(length):
        columns.append(x)
        x = A.numpy() @ x
    return torch.from_numpy(np.stack(columns, 2)) if columns else b.new_zeros(*b.shape[:2], 0, b.shape[2])


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_one_product_after_another(length: int) -> None:
    A, b = draw(2, 6, 3)
    c = torch.randn(2, 4, 6, dtype=torch.float64)
    want = one_by_one(A, b, length)
    assert_close(krylov(A, b, length), want, rtol=1e-10, atol=1e-10)
    assert_close(krylov_readout(A, b, c, length), torch.einsum("dmn,dnls->dmsl", c, want), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("N", [2, 64])
@pytest.mark.parametrize("length", [1, 7, 200])
def test_the_readout_is_an_impulse_response(N: int, length: int) -> None:
    """scipy's system answers an input one step later."""
    A, b = draw(1, N, 1)
    c = torch.randn(1, 2, N, dtype=torch.float64)
    pulse = np.zeros(length + 1)
    pulse[0] = 1
    want = signal.dlsim((A[0].numpy(), b[0].numpy(), c[0].numpy(), np.zeros((2, 1)), 1.0), pulse)[1][1:]
    assert_close(krylov_readout(A, b, c, length)[0, :, 0].T, torch.from_numpy(want), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", LENGTHS)
def test_each_row_ends_where_its_inputs_end(length: int) -> None:
    (A, h), b = draw(2, 5, 4), torch.randn(2, 5, dtype=torch.float64)
    lengths = torch.tensor([0, length // 3, (2 * length) // 3, length])
    u = torch.randn(4, length, 2, dtype=torch.float64)
    u = u * (torch.arange(length)[:, None] < lengths[:, None, None])
    want = h.clone()
    for row, count in enumerate(lengths.tolist()):
        for t in range(count):
            want[..., row] = (A @ want[..., row, None])[..., 0] + b * u[row, t][:, None]
    assert_close(krylov_carry(A, b, u, h, lengths), want, rtol=1e-10, atol=1e-10)
    whole = krylov_carry(A, b, u[-1:], h[..., -1:])
    assert_close(whole, want[..., -1:], rtol=1e-10, atol=1e-10)


def test_a_short_row_beside_a_long_one_is_reached_by_its_own_powers() -> None:
    """Undoing the pads' decay, 0.01 a step, would need 1e+400."""
    A = 0.01 * torch.eye(3, dtype=torch.float64)[None]
    h = torch.ones(1, 3, 2, dtype=torch.float64)
    got = krylov_carry(A, torch.zeros(1, 3).double(), torch.zeros(2, 200, 1).double(), h, torch.tensor([1, 200]))
    assert_close(got[0, :, 0], torch.full((3,), 0.01, dtype=torch.float64))
    assert (got[0, :, 1] == 0).all()


def test_doubling_does_what_it_says() -> None:
    """Columns double and powers square: N^2 (L - 1) + N^3 (log2 L - 1)."""
    (A, b), L, N = draw(1, 8, 1), 64, 8
    counted = count_macs(lambda: krylov.reference(A, b, L)).total
    assert counted == N * N * (L - 1) + 5 * N**3 == krylov.floor(A, b, L).macs


@pytest.mark.parametrize("length", [1, 5, 64, 1000])
def test_the_formulas_are_what_is_counted(length: int) -> None:
    (A, h), c, b = draw(2, 16, 3), torch.randn(2, 2, 16).double(), torch.randn(2, 16).double()
    u = torch.randn(3, length, 2).double()
    for op, inputs in ((krylov_readout, (A, h, c, length)), (krylov_carry, (A, b, u, h))):
        assert count_macs(lambda op=op, inputs=inputs: op.reference(*inputs)).total == op.floor(*inputs).macs


def test_two_levels_save_work_and_memory() -> None:
    """At N = 64 and L = 4096 a seventh of the work and a sixth of the memory of the whole matrix read out."""
    (A, b), c, L = draw(1, 64, 1), torch.randn(1, 1, 64).double(), 4096
    A.requires_grad_()
    whole = krylov.floor(A, b, L).macs + 64 * L
    assert krylov_readout.floor(A, b, c, L).macs < 0.15 * whole
    assert (
        saved_bytes(lambda: krylov_readout(A, b, c, L), count_inputs=False)
        < saved_bytes(lambda: c @ krylov(A, b, L)[..., 0], count_inputs=False) / 5
    )


def test_the_split_covers_every_length() -> None:
    for length in (0, 1, 2, 100, 4097):
        rows, columns = split(64, 1, 8, length)
        assert rows * columns >= length
        assert (rows - 1) * columns < max(length, 1)


def test_gradients_flow_to_all_inputs() -> None:
    (A, b), c = draw(2, 3, 2), torch.randn(2, 2, 3).double()
    leaves = [x.requires_grad_() for x in (A, b, c)]
    torch.autograd.gradcheck(lambda A, b, c: krylov_readout(A, b, c, 11), leaves)
    u, h = torch.randn(2, 7, 2).double().requires_grad_(), torch.randn(2, 3, 2).double().requires_grad_()
    torch.autograd.gradcheck(lambda A, u, h: krylov_carry(A, b[..., 0], u, h, torch.tensor([3, 7])), (A, u, h))


def test_wrong_shapes_are_refused() -> None:
    A, b = draw(2, 3, 1)
    with pytest.raises(ConfigError, match="krylov expects"):
        krylov(A, b[:1], 4)
    with pytest.raises(ConfigError, match="krylov expects"):
        krylov_readout(A[..., :2], b, A, 4)
