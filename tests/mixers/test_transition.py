"""The transition matrices are what their projections demand: coefficients by quadrature, one step ahead."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.mixers.ssm._transition import discretise, eigenvalues, low_rank, normal_low_rank, transition

solve_ivp = pytest.importorskip("scipy.integrate").solve_ivp
cont2discrete = pytest.importorskip("scipy.signal").cont2discrete
special = pytest.importorskip("scipy.special")

LOW_RANK = ("legs", "legt", "fourier")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def wave(t):
    return np.exp(-0.3 * t) * np.sin(2 * t + 0.4) + 0.3 * t


def quadrature(n, t, length):
    """<u, p_n> over the last ``length``, p_n = sqrt(2n + 1) P_n orthonormal there, by Gauss's rule."""
    return 0.5 * np.sum(
        WEIGHTS * math.sqrt(2 * n + 1) * special.eval_legendre(n, NODES) * wave(t - length * (1 - NODES) / 2)
    )


def test_legs_follows_its_equation_exactly():
    """A lower triangular system is closed: no coefficient depends on a later one, so nothing is truncated."""
    size, t, h = 6, 1.7, 1e-4
    A, B = (m.numpy() for m in transition("legs", size))
    c, before, after = (np.array([quadrature(n, at, at) for n in range(size)]) for at in (t, t - h, t + h))
    np.testing.assert_allclose((after - before) / (2 * h), (A @ c + B * wave(t)) / t, atol=1e-7)


def test_impulse_responses_of_lagt_are_laguerre_functions():
    A, B = (m.numpy() for m in transition("lagt", 6))
    at = np.linspace(0, 5, 11)
    got = solve_ivp(lambda t, x: A @ x, (0, 5), B, t_eval=at, rtol=1e-10, atol=1e-12).y
    want = np.stack([np.exp(-at / 2) * special.eval_laguerre(n, at) for n in range(len(B))])
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize("window", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["legt", "lmu"])
def test_sliding_windows_remember_what_they_saw(kind, window):
    """After a run over a smooth signal the coefficients are the window's Legendre coefficients."""
    size, end = 12, 4.0
    A, B = (m.numpy() for m in transition(kind, size, window))
    got = solve_ivp(lambda t, x: A @ x + B * wave(t), (0, end), np.zeros(size), rtol=1e-10, atol=1e-12).y[:, -1]
    want = np.array([quadrature(n, end, window) for n in range(size)])
    if kind == "lmu":
        want *= np.sqrt(2 * np.arange(size) + 1)
    np.testing.assert_allclose(got[:5], want[:5], atol=2e-3)  # truncation: the last coefficients carry the error


@pytest.mark.parametrize("window", [1.0, 2.5])
def test_fourier_remembers_its_window(window):
    """Coefficients of 1, sqrt 2 cos, sqrt 2 sin on the window, of a signal that has its period."""
    size, end = 16, 60 * window  # what it began with fades slowly
    A, B = (m.numpy() for m in transition("fourier", size, window))

    def turn(t):
        return 0.5 + np.cos(2 * np.pi * t / window) - 0.7 * np.sin(4 * np.pi * t / window)

    got = solve_ivp(lambda t, x: A @ x + B * turn(t), (0, end), np.zeros(size), rtol=1e-10, atol=1e-12).y[:, -1]
    s = end - window * (1 - NODES) / 2  # the window; sines of pair k sit at 2k + 1
    columns = [np.ones_like(s), np.zeros_like(s)]
    for k in range(1, size // 2):
        angle = 2 * np.pi * k * (end - s) / window
        columns += [np.sqrt(2) * np.cos(angle), np.sqrt(2) * np.sin(angle)]
    want = np.array([0.5 * np.sum(WEIGHTS * column * turn(s)) for column in columns])
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("size", [2, 8, 64])
@pytest.mark.parametrize("kind", LOW_RANK)
def test_normal_plus_low_rank_is_the_matrix(kind, size):
    A, B = transition(kind, size)
    P = low_rank(kind, size)
    normal = A + P.T @ P
    assert_close(normal @ normal.T, normal.T @ normal, rtol=1e-10, atol=1e-10 * size**2)
    parts = normal_low_rank(kind, size)
    V, L, p = parts.basis_NH, parts.eigenvalue_H, parts.low_rank_RH
    assert_close(2 * (V @ parts.input_H).real, B, rtol=0, atol=1e-10 * size)
    assert_close(2 * (V @ p.T).real.T, P, rtol=0, atol=1e-10 * size)
    assert_close(2 * (V @ torch.diag(L) @ V.conj().T).real, normal, rtol=0, atol=1e-10 * size**2)
    whole = torch.cat([V, V.conj()], 1)
    assert_close(whole.conj().T @ whole, torch.eye(size, dtype=V.dtype), rtol=0, atol=1e-10)
    assert (L.imag <= 0).all()
    assert_close(L.real, torch.full_like(L.real, -0.5 if kind == "legs" else 0.0), rtol=0, atol=1e-9 * size)


def test_diagonal_legs_is_the_half_with_positive_frequencies():
    whole = np.linalg.eigvals((transition("legs", 16)[0] + low_rank("legs", 16).T @ low_rank("legs", 16)).numpy())
    want = np.sort(whole.imag[whole.imag > 0])
    np.testing.assert_allclose(np.sort(eigenvalues("legs", 8).imag.numpy()), want, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_discretise_equals_scipy(alpha):
    A, B = transition("legs", 6)
    steps = torch.tensor([0.01, 0.3], dtype=torch.float64)
    got_A, got_B = discretise(A, B, steps, alpha)
    for number, dt in enumerate(steps.tolist()):
        system = (A.numpy(), B.numpy()[:, None], np.zeros((1, 6)), np.zeros((1, 1)))
        want = cont2discrete(system, dt, method="gbt", alpha=alpha)
        assert_close(got_A[number], torch.from_numpy(want[0]), rtol=1e-12, atol=1e-12)
        assert_close(got_B[number], torch.from_numpy(want[1][:, 0]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: transition("legs", 0),
        lambda: transition("legt", 4, 0.0),
        lambda: transition("wrong", 4),
        lambda: low_rank("lagt", 4),
        lambda: normal_low_rank("legs", 5),
        lambda: eigenvalues("wrong", 4),
    ],
)
def test_what_does_not_exist_is_refused(call):
    with pytest.raises(ConfigError):
        call()
