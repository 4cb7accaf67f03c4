"""The scan against its sum over earlier steps, scipy's integral of the ODE, and its own laws: chunks, resets, pads."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.kernels._kernel import use_backend
from seqloom.kernels.selective_scan import CHUNK, selective_scan

BACKENDS = ["reference", "numba_cpu", "triton_cuda"]
FAST = BACKENDS[1:]


def draw(B=2, T=13, E=5, N=3, dtype=torch.float64, largest=2.0):
    normal = [torch.randn(*size, dtype=dtype) for size in ((B, T, E), (B, T, N), (B, T, N), (B, E, N))]
    x_BTE, b_BTN, c_BTN, h_BEN = normal
    return x_BTE, torch.rand(B, T, E, dtype=dtype), -largest * torch.rand(E, N, dtype=dtype), b_BTN, c_BTN, h_BEN


def by_pairs(x_BTE, dt_BTE, a_EN, b_BTN, c_BTN, h_BEN):
    """Every output as a sum over the inputs before it: exp of a difference of running sums, all pairs at once."""
    total_BTEN = (dt_BTE[..., None] * a_EN).cumsum(1)
    into_BTEN = (dt_BTE * x_BTE)[..., None] * b_BTN[:, :, None]
    ahead_TS = torch.ones(x_BTE.shape[1], x_BTE.shape[1], dtype=torch.bool).triu(1)
    span_BTSEN = total_BTEN[:, :, None] - total_BTEN[:, None]
    span_BTSEN = span_BTSEN.masked_fill(ahead_TS[..., None, None], -torch.inf).exp()
    states_BTEN = torch.einsum("btsen,bsen->bten", span_BTSEN, into_BTEN)
    states_BTEN = states_BTEN + total_BTEN.exp() * h_BEN[:, None]
    return (states_BTEN * c_BTN[:, :, None]).sum(3), states_BTEN[:, -1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_sum_over_earlier_steps(backend):
    case = draw()
    with use_backend(backend):
        y_BTE, last_BEN, _ = selective_scan(*case)
    assert_close((y_BTE, last_BEN), by_pairs(*case), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_equal_those_of_the_sum(backend):
    case = [value.requires_grad_() for value in draw(T=CHUNK + 5, B=1, E=3, N=2)]
    weights = [torch.randn(1, CHUNK + 5, 3).double(), torch.randn(1, 3, 2).double()]

    def loss(outputs):
        return sum((value * weight).sum() for value, weight in zip(outputs, weights, strict=True))

    with use_backend(backend):
        got = torch.autograd.grad(loss(selective_scan(*case)[:2]), case)
    assert_close(got, torch.autograd.grad(loss(by_pairs(*case)), case), rtol=1e-9, atol=1e-9)


def test_a_constant_system_follows_the_differential_equation():
    """Exact decay and Euler's input: with a small step both are those of x' = a x + b u."""
    integrate = pytest.importorskip("scipy.integrate")
    a, b, c, h, step = -1.3, 0.7, 2.0, 0.4, 1e-3
    T = 500
    ones = torch.ones(1, T, 1, dtype=torch.float64)
    u = np.sin(np.arange(T) * step)
    given = (torch.tensor(u)[None, :, None], step * ones, torch.tensor([[a]]).double(), b * ones, c * ones)
    y_BTE, last_BEN, _ = selective_scan(*given, torch.full((1, 1, 1), h).double())
    found = integrate.solve_ivp(lambda t, x: a * x + b * np.sin(t), (0, T * step), [h], rtol=1e-10, atol=1e-12)
    assert_close(float(last_BEN), float(found.y[0, -1]), rtol=1e-3, atol=0)
    assert_close(float(y_BTE[0, -1, 0]), c * float(last_BEN), rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("cut", [1, CHUNK, CHUNK + 9])
def test_chunks_join(backend, cut):
    x, dt, a, b, c, h = draw(1, 2 * CHUNK + 1, 3, 2)
    with use_backend(backend):
        whole, last, _ = selective_scan(x, dt, a, b, c, h)
    first, between, _ = selective_scan(x[:, :cut], dt[:, :cut], a, b[:, :cut], c[:, :cut], h)
    second, end, _ = selective_scan(x[:, cut:], dt[:, cut:], a, b[:, cut:], c[:, cut:], between)
    assert_close(torch.cat([first, second], 1), whole, rtol=1e-12, atol=1e-12)
    assert_close(end, last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_segment_forgets_and_a_step_of_zero_holds(backend):
    x, dt, a, b, c, h = draw(1, 12, 4, 3)
    dt[:, 9:] = 0
    segments_BT = torch.tensor([[0] * 5 + [1] * 7])
    with use_backend(backend):
        y_BTE, last_BEN, _ = selective_scan(x, dt, a, b, c, h, segments_BT)
    want, before = by_pairs(x[:, 5:9], dt[:, 5:9], a, b[:, 5:9], c[:, 5:9], torch.zeros_like(h))
    assert_close((y_BTE[:, 5:9], last_BEN), (want, before), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST)
def test_a_row_that_starts_at_once_ignores_its_state(backend):
    case = draw(2, 7, 3, 2)
    with use_backend(backend):
        got = selective_scan(*case, torch.ones(2, 7, dtype=torch.long))
    assert_close(got[:2], by_pairs(*case[:5], torch.zeros_like(case[5])), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST)
def test_extreme_steps_stay_finite(backend):
    """exp(-6000) is 0 and its gradient is too."""
    x, dt, a, b, c, h = draw(1, 20, 3, 2, torch.float32)
    case = [value.requires_grad_() for value in (x, 100 * dt, 60 * a, b, c, h)]
    with use_backend(backend):
        outputs = selective_scan(*case)
        grads = torch.autograd.grad(outputs[0].sum() + outputs[1].sum(), case)
    assert all(value.isfinite().all() for value in (*outputs, *grads))
    want = by_pairs(*(value.detach().double() for value in case))
    assert_close(outputs[0].double(), want[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_keeps_float32_states(backend):
    x, dt, a, b, c, h = draw(1, 300, 2, 2, torch.float32)
    a = a * 1e-3  # 0.9995 would round to 1
    with use_backend(backend):
        y_BTE, last_BEN, _ = selective_scan(x.bfloat16(), dt, a, b.bfloat16(), c.bfloat16(), h)
    assert (y_BTE.dtype, last_BEN.dtype) == (torch.bfloat16, torch.float32)
    rounded = (x.bfloat16().double(), dt.double(), a.double(), b.bfloat16().double(), c.bfloat16().double())
    assert_close(last_BEN.double(), by_pairs(*rounded, h.double())[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", FAST)
def test_no_backend_keeps_a_state_for_every_step(backend):
    """What autograd saves: the inputs, and one state in every CHUNK steps."""
    B, T, E, N = 1, 4 * CHUNK, 4, 8
    case = [value.requires_grad_() for value in draw(B, T, E, N, torch.float32)]
    kept = {}

    def pack(value):
        kept[value.data_ptr()] = value.nbytes
        return value

    with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        selective_scan(*case)
    inputs = sum(value.nbytes for value in case)
    assert sum(kept.values()) - inputs <= 4 * B * E * N * (T // CHUNK)


def test_threads_change_no_number():
    case = draw(3, 2 * CHUNK + 1, 70, 16, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with use_backend("numba_cpu"):
                found.append(selective_scan(*case))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_backends_say_why_they_refuse():
    x, dt, a, b, c, h = draw(1, 5, 2, 3)
    reasons = {verdict.backend: verdict.reason for verdict in selective_scan.explain(x, dt, a, b, c, h[:, :1])}
    assert "shapes do not fit" in reasons["numba_cpu"]
