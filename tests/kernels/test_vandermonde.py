import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import Counter, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.vandermonde import _tables, vandermonde, vandermonde_transposed

FORMS = ("reference", "torch_cpu")
CASES = list(vandermonde.generate(torch.Generator().manual_seed(0), torch.float64))
TRANSPOSED = list(vandermonde_transposed.generate(torch.Generator().manual_seed(0), torch.float64))


def powers(log_a, length):
    """The dense matrix (D, N, L), one exponential an entry."""
    return torch.exp(log_a.to(torch.complex128)[..., None] * torch.arange(length))


def dense(log_a, c, length):
    return (c[..., None] * powers(log_a, length)).sum(-2).real


def dense_transposed(log_a, g):
    return (g[..., None, :] * powers(log_a, g.shape[-1])).sum(-1)


def forms(*inputs):
    return FORMS[:1] if _tables.refuses(*inputs) else FORMS


def slow_modes(*shape):
    """Modes that still live at l = 65536 and turn up to half a circle a step."""
    return torch.complex(-1e-5 * torch.rand(shape).double(), 3 * torch.rand(shape).double())


def check_values_and_gradients(op, by_hand, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs if isinstance(x, torch.Tensor)]
    rest = [x for x in inputs if not isinstance(x, torch.Tensor)]
    want = by_hand(*leaves, *rest)
    weight = torch.randn_like(want)
    d_want = torch.autograd.grad((want * weight).sum().real, leaves)
    for form in forms(*inputs):
        with use_backend(form):
            got = op(*leaves, *rest)
            d_got = torch.autograd.grad((got * weight).sum().real, leaves)
        assert_close((got, *d_got), (want, *d_want), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{tuple(case[1].shape)}-{case[2]}")
def test_equals_the_dense_sum(case):
    check_values_and_gradients(vandermonde, dense, case)


@pytest.mark.parametrize("case", TRANSPOSED, ids=lambda case: str(tuple(case[1].shape)))
def test_transposed_equals_the_dense_sum(case):
    check_values_and_gradients(vandermonde_transposed, dense_transposed, case)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 15, 16, 17, 31, 97, 1024, 1025])
def test_any_length(length):
    log_a, c = CASES[-2][:2]
    g = torch.randn(2, len(log_a), length).double()
    for form in FORMS:
        with use_backend(form):
            assert_close(vandermonde(log_a, c, length), dense(log_a, c, length), rtol=1e-10, atol=1e-10)
            assert_close(vandermonde_transposed(log_a, g), dense_transposed(log_a, g), rtol=1e-10, atol=1e-10)


def test_one_term_a_mode_and_no_factor_two():
    log_a = torch.zeros(1, 2, dtype=torch.complex128)
    c = torch.tensor([[1 + 5j, 2 - 7j]], dtype=torch.complex128)
    assert_close(vandermonde(log_a, c, 3), torch.full((1, 3), 3.0, dtype=torch.float64))


def test_the_transposed_sum_is_the_adjoint():
    log_a, c, length = CASES[-1]
    g = torch.randn(*c.shape[:-1], length).double()
    left = (vandermonde(log_a, c, length) * g).sum()
    right = (c * vandermonde_transposed(log_a, g)).sum().real
    assert_close(left, right)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    log_a, c = (x.clone().requires_grad_() for x in CASES[-3][:2])
    g = torch.randn(2, 3, 7).double().requires_grad_()
    with use_backend(form):
        torch.autograd.gradcheck(lambda log_a, c: vandermonde(log_a, c, 7), (log_a, c))
        torch.autograd.gradcheck(vandermonde_transposed, (log_a, g))
        torch.autograd.gradgradcheck(lambda log_a, c: vandermonde(log_a, c, 7), (log_a, c))


@pytest.mark.parametrize("form", FORMS)
def test_float32_is_right_at_65536(form):
    """The error stays at the rounding of 64 terms of size 1, where powers of a float32 phase are off by the whole."""
    log_a, length = slow_modes(2, 32), 65536
    c = torch.randn(2, 32, dtype=torch.complex64)
    want = dense(log_a, c.to(torch.complex128), length)
    scale = c.abs().sum(-1).max()
    with use_backend(form):
        error = (vandermonde(log_a, c, length) - want).abs().max() / scale
    assert error < 8 * torch.finfo(torch.float32).eps
    naive = (c[..., None] * torch.exp(log_a.to(torch.complex64)[..., None] * torch.arange(length))).sum(-2).real
    assert (naive - want).abs().max() / scale > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_float32_transposed_is_right_at_65536(form):
    log_a, g = slow_modes(2, 8), torch.randn(2, 65536)
    want = dense_transposed(log_a, g.double())
    with use_backend(form):
        error = (vandermonde_transposed(log_a, g) - want).abs().max()
    assert error < 1e-6 * g.abs().sum(-1).max()


def test_decays_to_nothing_without_nan():
    log_a = torch.tensor([[-1e30 + 1e28j, -800 + 0j, -1e-30 + 1e9j]], dtype=torch.complex128).requires_grad_()
    c = torch.ones(1, 3, dtype=torch.complex64).requires_grad_()
    k = vandermonde(log_a, c, 100)
    assert torch.isfinite(k).all()
    assert all(torch.isfinite(torch.view_as_real(g)).all() for g in torch.autograd.grad(k.sum(), (log_a, c)))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_tables_hold_no_denormal_numbers(dtype):
    """A processor takes a hundred times as long for each; what is left is what the power is."""
    log_a_DN = torch.complex(-torch.logspace(-2, 1, 40).double(), torch.linspace(0, 3, 40).double())[None]
    table_DMN = _tables._powers(log_a_DN, 400, dtype)
    parts = torch.view_as_real(table_DMN).abs()
    assert not ((parts > 0) & (parts < torch.finfo(dtype).tiny)).any()
    assert (parts == 0).any()
    want_DMN = (torch.arange(400)[:, None] * log_a_DN[:, None]).exp().to(dtype)
    assert_close(table_DMN, want_DMN, rtol=1e-5 if dtype == torch.complex64 else 1e-13, atol=1e-30)


def test_memory_and_work_are_of_the_factored_form():
    """Kept: the inputs. Done: 2 N multiply-adds an output and tables of 2 N sqrt(L), not N L exponentials."""
    D, N, L = 3, 16, 4096
    log_a, c = slow_modes(D, N).requires_grad_(), torch.randn(D, N, dtype=torch.complex64).requires_grad_()
    assert saved_bytes(lambda: vandermonde(log_a, c, L)) == log_a.nbytes + c.nbytes
    with use_backend("reference"):
        assert saved_bytes(lambda: vandermonde(log_a, c, L)) < D * N * L * 8 / 4
    with Counter() as counter, torch.no_grad():
        _tables.forward(log_a, c, L)
    assert counter.macs.total == D * L * 2 * N
    assert counter.macs.elementwise < 20 * D * N * 64 * 2


def test_wrong_inputs_are_refused():
    log_a, c = slow_modes(3, 4), torch.randn(3, 4, dtype=torch.complex64)
    with pytest.raises(ConfigError, match="complex log a"):
        vandermonde(log_a.real, c, 5)
    with pytest.raises(ConfigError, match="beside log a"):
        vandermonde(log_a, c[:2], 5)


def test_compiles_whole():
    log_a, c = CASES[-2][0].clone().requires_grad_(), CASES[-2][1].clone().requires_grad_()
    compiled = torch.compile(lambda log_a, c: vandermonde(log_a, c, 20), backend="aot_eager", fullgraph=True)
    got, want = compiled(log_a, c), vandermonde(log_a, c, 20)
    assert_close(got, want)
    assert_close(torch.autograd.grad(got.sum(), (log_a, c)), torch.autograd.grad(want.sum(), (log_a, c)))


def test_the_custom_ops_are_sound():
    (log_a, c, length), (_, g) = CASES[-2], TRANSPOSED[-2]
    leaves = [x.clone().requires_grad_() for x in (log_a, c, g)]
    for op, inputs in ((vandermonde, (*leaves[:2], length)), (vandermonde_transposed, (leaves[0], leaves[2]))):
        backend = next(b for b in op.backends if b.name == "torch_cpu")
        torch.library.opcheck(backend.op, inputs)
