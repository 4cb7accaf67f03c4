import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import Counter, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.cauchy import BLOCK, cauchy

signal = pytest.importorskip("scipy.signal")
FORMS = ("reference", "numba_cpu")


def draw(D=2, N=5, J=37, rows=(3,)):
    real, imaginary = torch.rand(2, D, N).double()
    z = torch.complex(torch.zeros(J), 5 * torch.rand(J) - 1).to(torch.complex128)
    return z, torch.complex(-0.2 - real, 3 * imaginary), torch.randn(*rows, D, N, dtype=torch.complex128)


def brute(z, w, v):
    """Both terms of every pair, the whole (N, J) matrix."""
    return (v[..., None] / (z - w[..., None]) + v.conj()[..., None] / (z - w.conj()[..., None])).sum(-2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("points", [1, 2, 63, 64, 65, BLOCK, BLOCK + 1])
def test_equals_the_sum_and_its_gradients(form, points):
    """Whole blocks of both forms, one point less and one more; every gradient by autograd of the plain sum."""
    inputs = [x.requires_grad_() for x in draw(J=points)]
    want = brute(*inputs)
    weight = torch.randn_like(want)
    d_want = torch.autograd.grad((want * weight).sum().real, inputs)
    with use_backend(form):
        got = cauchy(*inputs)
        d_got = torch.autograd.grad((got * weight).sum().real, inputs)
    assert_close((got, *d_got), (want, *d_want), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_is_the_transfer_function_that_scipy_makes_of_its_residues(form):
    z, w, v = draw(1, 3, 11, ())
    poles, residues = (np.concatenate([x[0].numpy(), x[0].numpy().conj()]) for x in (w, v))
    above, below = signal.invres(residues, poles, [])
    with use_backend(form):
        got = cauchy(z, w, v)[0].numpy()
    np.testing.assert_allclose(got, np.polyval(above, z) / np.polyval(below, z), rtol=1e-8)


def test_the_conjugate_term_is_added_here_and_nothing_is_doubled():
    """One real pole: 1 / (z + 1) twice. A readout that passed 2 v would be twice too large."""
    z = torch.tensor([0j, 1 + 0j, 2j], dtype=torch.complex128)
    one = torch.ones(1, 1, dtype=torch.complex128)
    assert_close(cauchy(z, -one, one)[0], 2 / (z + 1))


@pytest.mark.parametrize("form", FORMS)
def test_rows_share_their_poles_and_may_lie_anyhow_in_front(form):
    z, w, v = draw(rows=(2, 0, 3))
    with use_backend(form):
        assert cauchy(z, w, v).shape == (2, 0, 3, 2, 37)
        _, _, v = draw(rows=(2, 3))
        got = cauchy(z, w, v)
        assert_close(got, torch.stack([torch.stack([cauchy(z, w, x) for x in y]) for y in v]))


@pytest.mark.parametrize("form", FORMS)
def test_float32_numerators_are_right_beside_a_pole(form):
    """Points 1e-3 from poles that lie 1000 from zero: in float32 z - w has lost all but a digit."""
    w = torch.complex(-1e-3 * torch.rand(1, 8).double(), 1000 + 10 * torch.rand(1, 8).double())
    z, v = 1j * (w[0].imag + 1e-3 * torch.rand(8).double()), torch.randn(1, 8, dtype=torch.complex64)
    want = brute(z, w, v.to(torch.complex128))
    with use_backend(form):
        error = ((cauchy(z, w, v) - want).abs() / want.abs()).max()
    assert error < 4 * torch.finfo(torch.float32).eps
    naive = brute(z.to(torch.complex64), w.to(torch.complex64), v)
    assert ((naive - want).abs() / want.abs()).max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 5])
def test_a_point_at_zero_is_no_pole_of_what_fills_a_group(form, pairs):
    z, w, v = draw(N=pairs, J=3)
    z[1] = 0
    with use_backend(form):
        assert_close(cauchy(z, w, v), brute(z, w, v), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_poles_of_any_size_give_finite_sums_and_gradients(form):
    w = torch.tensor([[-1e50 + 1e49j, -1e-40 + 1e-40j, -1 + 0j]], dtype=torch.complex128).requires_grad_()
    v, z = torch.ones_like(w).requires_grad_(), torch.tensor([1e-3 + 0j, 1e9j], dtype=torch.complex128)
    with use_backend(form):
        f = cauchy(z, w, v)
        found = torch.autograd.grad(f.abs().sum(), (w, v))
    assert all(torch.isfinite(torch.view_as_real(x)).all() for x in (f, *found))


def test_memory_is_that_of_inputs_and_outputs():
    """Kept for the backward: the inputs. Alive at once beside them: the result, and the points once more."""
    z, w, v = (x.requires_grad_(at > 0) for at, x in enumerate(draw(2, 32, 1 << 15, (4,))))
    assert saved_bytes(lambda: cauchy(z, w, v)) == z.nbytes + w.nbytes + v.nbytes
    out = cauchy(z, w, v)
    for run in (lambda: cauchy(z, w, v), lambda: torch.autograd.grad(out, (w, v), out.detach(), retain_graph=True)):
        assert peak(run) < out.nbytes + 6 * z.nbytes < 2 * 32 * z.nbytes * 2


def peak(run):
    """Most bytes of tensors that lived at once beyond those before."""
    run()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


def test_counts_four_multiply_adds_a_pair_a_point_and_a_row():
    z, w, v = draw(2, 5, 37, (3,))
    for form in FORMS:
        with use_backend(form), Counter() as counter:
            cauchy(z, w, v)
        assert counter.macs.total == 4 * 3 * 2 * 5 * 37


def test_wrong_inputs_are_refused():
    z, w, v = draw()
    with pytest.raises(ConfigError, match="complex z, w and v"):
        cauchy(z.real, w, v)
    with pytest.raises(ConfigError, match=r"\(\.\.\., D, N\)"):
        cauchy(z, w, v[..., :2])
