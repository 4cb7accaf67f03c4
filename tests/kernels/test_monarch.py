"""Monarch products against dense matrices that numpy and scipy build, the Fourier transform, and triangular algebra."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import count_macs, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.monarch import _tiles, monarch, monarch_backward
from seqloom.kernels.monarch.factors import dense, dft, invert, leading, split

FORMS = ("reference", "torch_cpu")
DIGITS = [(4, 4, 4, 4), (3, 5, 2, 7), (5, 3, 7, 2), (1, 6, 4, 1), (6, 1, 1, 4)]
ORDERS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """The tiles serve small inputs too, in several tiles."""
    monkeypatch.setattr(_tiles, "WORK", 0)
    monkeypatch.setattr(_tiles, "TILE", 1)


def randn(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def factors(I, J, L, K, dtype=torch.float64):
    return randn(K, L, I, dtype=dtype), randn(I, K, J, dtype=dtype)


def reversal(high, low):
    """Permutation matrix from the order (high, low) to the order (low, high)."""
    return np.eye(high * low)[np.arange(high * low).reshape(high, low).T.ravel()]


def by_permutations(left, right, reverse_in, reverse_out):
    """P blockdiag(left) P blockdiag(right) P as numpy writes it, each P a permutation matrix."""
    linalg = pytest.importorskip("scipy.linalg")
    (K, L, I), J = left.shape, right.shape[2]
    into = reversal(J, I) if reverse_in else np.eye(I * J)
    middle = linalg.block_diag(*left.numpy()) @ reversal(I, K) @ linalg.block_diag(*right.numpy())
    return (np.eye(K * L) if reverse_out else reversal(K, L)) @ middle @ into


def run(form, *inputs):
    with use_backend(form):
        return monarch(*inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize(("A", "C"), [(1, 1), (70, 1), (2, 37), (3, 5), (2, 0), (0, 3)])
def test_equals_the_dense_matrix(form, order, digits, A, C):
    left, right = factors(*digits)
    x = randn(A, digits[0] * digits[1], C)
    want = torch.from_numpy(by_permutations(left, right, *order))
    assert_close(dense(left, right, *order), want, rtol=1e-12, atol=1e-12)
    assert_close(run(form, x, left, right, *order), want @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("A", "C"), [(70, 1), (2, 37), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_are_those_of_the_dense_matrix(form, order, A, C, dtype):
    left, right, x, weight = *factors(3, 4, 5, 2, dtype), randn(A, 12, C, dtype=dtype), randn(A, 10, C, dtype=dtype)
    leaves = [value.requires_grad_() for value in (x, left, right)]
    want = torch.autograd.grad(dense(left, right, *order) @ x, leaves, weight)
    assert_close(torch.autograd.grad(run(form, *leaves, *order), leaves, weight), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("high", "low"), [(4, 4), (3, 5), (8, 2), (1, 7), (7, 1), (16, 17)])
def test_the_fourier_transform_is_one(form, high, low):
    linalg, n = pytest.importorskip("scipy.linalg"), high * low
    left, right = dft(high, low, torch.complex128)
    x = randn(2, n, 33)
    assert_close(dense(left, right, True), torch.from_numpy(linalg.dft(n)), rtol=1e-11, atol=1e-11)
    got = run(form, x.to(torch.complex128), left, right, True)
    assert_close(got, torch.fft.fft(x, dim=1), rtol=1e-11, atol=1e-11)


def test_a_circular_convolution_is_two_of_them():
    linalg, n = pytest.importorskip("scipy.linalg"), 15
    left, right = dft(3, 5, torch.complex128)
    x, k = randn(1, n, 4), randn(1, n, 1)
    both = [monarch(value, left, right, True) for value in (x, k)]
    back = monarch((both[0] * both[1]).conj(), left, right, True).conj() / n  # a real factor pair on complex inputs too
    want = torch.from_numpy(linalg.circulant(k[0, :, 0].numpy())) @ x
    assert_close(back, want.to(torch.complex128), rtol=1e-11, atol=1e-11)


def test_identity_blocks_in_another_order_are_a_permutation():
    I, J = 3, 5
    left, right = (torch.eye(size).double().expand(blocks, -1, -1) for size, blocks in ((I, J), (J, I)))
    x = randn(1, I * J, 2)
    assert torch.equal(monarch(x, left, right), x)
    assert torch.equal(monarch(x, left, right, False, True)[0], torch.from_numpy(reversal(I, J)) @ x[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("I", "J"), [(4, 4), (3, 6), (6, 3)])
def test_lower_triangular_blocks_never_look_ahead(form, I, J):
    left, right = (value.tril() for value in factors(I, J, I, J))
    matrix = dense(left, right)
    assert torch.equal(matrix, matrix.tril())
    assert matrix.count_nonzero() == I * (I + 1) * J * (J + 1) // 4  # nothing below the diagonals of blocks is lost
    x = randn(1, I * J, 2).requires_grad_()
    y = run(form, x, left, right)
    for t in range(I * J):
        (slope,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        assert not slope[:, t + 1 :].any()
        assert slope[:, t].all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("I", "J"), [(4, 4), (3, 6), (6, 3)])
def test_the_inverse_of_a_triangular_one(form, I, J):
    left, right = (0.3 * value.tril(-1) + torch.eye(value.shape[-1]) for value in factors(I, J, I, J))
    back = invert(left, right)
    want = torch.from_numpy(np.linalg.inv(dense(left, right).numpy()))
    assert_close(dense(*back, True, True), want, rtol=1e-10, atol=1e-10)
    assert torch.equal(dense(*back, True, True).triu(1), torch.zeros(I * J, I * J).double())
    x = randn(2, I * J, 33)
    assert_close(run(form, run(form, x, left, right), *back, True, True), x, rtol=1e-10, atol=1e-10)
    torch.autograd.gradcheck(lambda a, b: dense(*invert(a, b), True, True), (left.requires_grad_(), right))


def test_the_inverse_does_not_read_above_the_diagonals():
    left, right = factors(3, 4, 3, 4)
    assert_close(invert(left, right), invert(left.tril(), right.tril()))


def test_the_first_positions_of_a_triangular_one():
    left, right = (value.tril() for value in factors(5, 3, 5, 3))
    assert_close(dense(*leading(left, right, 2)), dense(left, right)[:6, :6])
    whole, part = dense(*invert(left, right), True, True), invert(*leading(left, right, 2))
    assert_close(dense(*part, True, True), whole[:6, :6], rtol=1e-7, atol=1e-7 * float(whole.abs().max()))


@pytest.mark.parametrize("form", FORMS)
def test_strides_do_not_matter(form):
    left, right, x = *factors(4, 3, 5, 2), randn(2, 12, 40)
    want = dense(left, right) @ x
    turned = x.transpose(1, 2).contiguous().transpose(1, 2), *(v.mT.contiguous().mT for v in (left, right))
    assert_close(run(form, *turned), want)
    assert_close(run(form, x.expand(2, -1, -1)[:, :, ::2], left, right), want[..., ::2])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_rounding_is_that_of_two_products(form, kind):
    left, right = (value / 4 for value in factors(16, 16, 16, 16))
    x = randn(1, 256, 64)
    narrow = [value.to(kind) for value in (x, left, right)]
    want = dense(narrow[1].double(), narrow[2].double()) @ narrow[0].double()
    got = run(form, *narrow)
    assert got.dtype == kind
    bound = (
        32 * torch.finfo(kind).eps if kind == torch.float32 else 2 * torch.finfo(kind).eps
    )  # sums are float32 inside
    assert (got.double() - want).norm() <= bound * want.norm()


def test_real_inputs_of_complex_factors_have_real_gradients():
    left, right = dft(3, 4, torch.complex128)
    x = randn(2, 12, 3).requires_grad_()
    torch.autograd.gradcheck(lambda x: monarch(x, left, right, True), x)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_kept_for_the_backward_pass(form):
    left, right = (value.float().requires_grad_() for value in factors(8, 8, 8, 8))
    x = randn(2, 64, 40, dtype=torch.float32).requires_grad_()
    kept = saved_bytes(lambda *inputs: run(form, *inputs), x, left, right)
    inputs = x.nbytes + left.nbytes + right.nbytes
    assert kept == inputs if form == "torch_cpu" else kept > inputs


def test_operations_are_a_thirtieth_of_the_dense_matrix():
    n, b = 4096, 64
    with torch.device("meta"):
        x, block = torch.empty(1, n, 1), torch.empty(b, b, b)
    assert monarch.floor(x, block, block).macs == 2 * n * b
    assert n * n / monarch.floor(x, block, block).macs >= 30


@pytest.mark.parametrize("form", FORMS)
def test_counted_operations_are_those_that_run(form):
    left, right, x = *factors(3, 4, 5, 2), randn(2, 12, 40)
    products = 2 * 40 * (12 * 2 + 10 * 3)
    with use_backend(form):
        assert count_macs(monarch, x, left, right).total == products
    assert count_macs(monarch.reference, x, left, right).total == products
    dy = randn(2, 10, 40)
    counted = count_macs(monarch_backward.reference, dy, x, left, right).total
    assert counted == monarch_backward.floor(dy, x, left, right).macs


@pytest.mark.parametrize("size", [1, 2, 7, 64, 65, 1000, 1024, 4097])
def test_digits_are_nearly_equal_and_cover(size):
    high, low = split(size)
    assert size <= high * low < size + low
    assert high - low in (0, 1, 2)


def test_wrong_shapes_are_refused():
    left, right = factors(3, 4, 5, 2)
    for bad in (randn(1, 11, 2), randn(12, 2)):
        with pytest.raises(ConfigError, match="12 rows"):
            monarch(bad, left, right)
    with pytest.raises(ConfigError, match="do not fit"):
        monarch(randn(1, 12, 2), left.mT, right)
    with pytest.raises(ConfigError, match="square"):
        invert(left, right)
    with pytest.raises(ConfigError, match="not 0"):
        split(0)
    with pytest.raises(ConfigError, match="complex"):
        dft(2, 2, torch.float32)
