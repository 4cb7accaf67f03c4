"""The scan against scipy's filter, a hand loop in numpy, and its own laws: chunks, resets, pads."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.kernels._kernel import use_backend
from seqloom.kernels.linear_scan import linear_scan, linear_scan_backward

BACKENDS = ["reference", "numba_cpu", "triton_cuda"]


def draw(B: int, T: int, D: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.rand(*shape, dtype=dtype) for shape in ((B, T, D), (B, T, D), (B, D))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_decay_is_a_first_order_filter(backend: str) -> None:
    signal = pytest.importorskip("scipy.signal")
    _, x_BTD, h_BD = draw(2, 40, 3)
    with use_backend(backend):
        y_BTD, _ = linear_scan(torch.full_like(x_BTD, 0.7), x_BTD, torch.zeros_like(h_BD))
    assert_close(y_BTD.numpy(), signal.lfilter([1.0], [1.0, -0.7], x_BTD.numpy(), axis=1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_equals_a_loop(backend: str, reverse: bool, dtype: torch.dtype) -> None:
    a_BTD, x_BTD, h_BD = draw(2, 35, 37, dtype)  # beyond a tile of Triton and a group of numba in both directions
    with use_backend(backend):
        y_BTD, last_BD = linear_scan(a_BTD, x_BTD, h_BD, reverse)
    want, state = np.empty(x_BTD.shape, x_BTD.numpy().dtype), h_BD.numpy()
    for t in reversed(range(35)) if reverse else range(35):
        state = want[:, t] = a_BTD[:, t].numpy() * state + x_BTD[:, t].numpy()
    assert_close(y_BTD.numpy(), want)
    assert_close(last_BD.numpy(), state)


@pytest.mark.parametrize("backend", ["numba_cpu", "triton_cuda"])
def test_chunks_join(backend: str) -> None:
    a_BTD, x_BTD, h_BD = draw(2, 30, 5)
    with use_backend(backend):
        whole, last = linear_scan(a_BTD, x_BTD, h_BD)
        first, between = linear_scan(a_BTD[:, :11], x_BTD[:, :11], h_BD)
        second, end = linear_scan(a_BTD[:, 11:], x_BTD[:, 11:], between)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(end, last)


def test_a_zero_decay_forgets_and_a_pad_keeps() -> None:
    a_BTD, x_BTD, h_BD = draw(1, 12, 4)
    a_BTD[:, 5], a_BTD[:, 9:], x_BTD[:, 9:] = 0, 1, 0
    y_BTD, last_BD = linear_scan(a_BTD, x_BTD, h_BD)
    alone, _ = linear_scan(a_BTD[:, 5:], x_BTD[:, 5:], torch.zeros_like(h_BD))
    assert torch.equal(y_BTD[:, 5:], alone)
    assert torch.equal(last_BD, y_BTD[:, 8])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_blocks_do_not_change_a_number(threads: int) -> None:
    a_BTD, x_BTD, h_BD = draw(1, 300, 130, torch.float32)  # large enough for two threads, in blocks of 65 channels
    weight = torch.rand_like(x_BTD)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = linear_scan(a_BTD, x_BTD, h_BD)
        back = linear_scan_backward(weight, h_BD, a_BTD, got[0], h_BD)
    finally:
        torch.set_num_threads(before)
    want = linear_scan.reference(a_BTD, x_BTD, h_BD)
    assert torch.equal(got[0], want[0])  # the same multiplications and additions in the same order
    with use_backend("reference"):
        assert_close(back, linear_scan_backward(weight, h_BD, a_BTD, got[0], h_BD))


def test_half_precision_is_accumulated_in_float32() -> None:
    a_BTD, x_BTD, h_BD = draw(1, 400, 2, torch.float32)
    a_BTD = a_BTD * 0 + 1
    half = x_BTD.bfloat16()
    y_BTD, last_BD = linear_scan(a_BTD.bfloat16(), half, h_BD)
    assert y_BTD.dtype == torch.bfloat16
    assert last_BD.dtype == torch.float32
    assert_close(last_BD, h_BD + half.float().sum(1), rtol=1e-5, atol=1e-3)
    reasons = {verdict.backend: verdict.reason for verdict in linear_scan.explain(half, half, h_BD)}
    assert "bfloat16" in reasons["numba_cpu"]


@pytest.mark.parametrize("bad", [(2, 1, 3), (2, 9, 3)])
def test_shapes_that_do_not_fit_never_reach_compiled_code(bad: tuple[int, ...]) -> None:
    _, x_BTD, h_BD = draw(2, 8, 3)
    with pytest.raises(ValueError, match="zip"):
        linear_scan(torch.rand(bad, dtype=torch.float64), x_BTD, h_BD)


def test_the_decays_gradient_is_conjugated() -> None:
    """For real losses torch wants the gradient that points uphill: d/d(re) + i d/d(im)."""
    a_BTD, x_BTD, h_BD = (value.requires_grad_() for value in draw(1, 6, 2, torch.complex128))
    y_BTD, _ = linear_scan(a_BTD, x_BTD, h_BD)
    (slope_BTD,) = torch.autograd.grad(y_BTD.abs().square().sum(), a_BTD)
    step = 1e-6 * slope_BTD
    with torch.no_grad():
        up = linear_scan(a_BTD + step, x_BTD, h_BD)[0].abs().square().sum()
        down = linear_scan(a_BTD - step, x_BTD, h_BD)[0].abs().square().sum()
    assert_close((up - down) / 2e-6, slope_BTD.abs().square().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_constant_decay_is_that_decay_everywhere(backend: str, reverse: bool, dtype: torch.dtype) -> None:
    _, x_BTD, h_BD = draw(2, 35, 5, dtype)
    a_11D = torch.rand(1, 1, 5, dtype=dtype) * 0.6
    want = linear_scan.reference(a_11D.expand_as(x_BTD), x_BTD, h_BD, reverse)
    with use_backend(backend):
        assert_close(linear_scan(a_11D, x_BTD, h_BD, reverse), want)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_constant_decays_gradient_is_the_sum_over_positions(threads: int, reverse: bool) -> None:
    """Sums of 128 steps are added up, so that float32 stays good to rounding however long."""
    _, x_BTD, h_BD = draw(2, 1000, 35)
    dy_BTD, dlast_BD, a_11D = torch.rand_like(x_BTD), torch.rand_like(h_BD), torch.rand(1, 1, 35).double()
    y_BTD, _ = linear_scan.reference(a_11D, x_BTD, h_BD, reverse)
    with use_backend("reference"):
        whole = linear_scan_backward(dy_BTD, dlast_BD, a_11D.expand_as(x_BTD), y_BTD, h_BD, reverse)
    want = (whole[0].sum((0, 1), keepdim=True), *whole[1:])
    inputs = (dy_BTD, dlast_BD, a_11D, y_BTD, h_BD)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype, bound in (torch.float64, 1e-12), (torch.float32, 2e-6):
            with use_backend("numba_cpu"):
                got = linear_scan_backward(*(value.to(dtype) for value in inputs), reverse)
            error = (got[0] - want[0]).abs().max() / want[0].abs().max()
            assert error < bound
    finally:
        torch.set_num_threads(before)
    with use_backend("numba_cpu"):
        assert_close(linear_scan_backward(*inputs, reverse)[1:], want[1:])
