import itertools

import pytest
import torch
from torch.nn.functional import pad
from torch.testing import assert_close

from seqloom.core.counting import count_macs, saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv_nd import _grid, long_conv_nd, long_conv_nd_lags, torch_cpu

CASES = list(long_conv_nd.generate(torch.Generator().manual_seed(0), torch.float64))
LAGS = list(long_conv_nd_lags.generate(torch.Generator().manual_seed(0), torch.float64))
GRIDS = [(13,), (1, 9), (7, 11), (8, 8), (5, 1, 4), (3, 5, 4)]
EQUAL = {"rtol": 1e-10, "atol": 1e-10}


def randn(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def of(u_BXD, ahead, *rest):
    """The call's kernels and its axes."""
    taps = _grid.given(*rest[:3])
    return taps, _grid.axes_of(u_BXD.shape[1:-1], ahead, [k.shape[2] for k in taps])


def outer(taps):
    """The whole kernel (D, W1, W2, ...)."""
    letters = "xyz"[: len(taps)]
    return torch.einsum(",".join("rd" + at for at in letters) + f"->d{letters}", *taps)


def by_scipy(u_BXD, ahead, first, second=None, third=None, skip_D=None):
    """scipy's direct n-dimensional convolution with the whole kernel, a row and a channel at a time."""
    convolve = pytest.importorskip("scipy.signal").convolve
    K_DW = outer(_grid.given(first, second, third))
    y_BXD = torch.zeros_like(u_BXD)
    inside = tuple(slice(M, M + size) for M, size in zip(ahead, u_BXD.shape[1:-1], strict=True))
    if u_BXD.numel():
        for b, d in itertools.product(range(len(u_BXD)), range(u_BXD.shape[-1])):
            # Taps on the future alone have no lag 0: a zero behind them makes room for the last output.
            kernel = pad(K_DW[d], [0, 1] * len(ahead)).numpy()
            whole = convolve(u_BXD[b, ..., d].numpy(), kernel, method="direct")
            y_BXD[b, ..., d] = torch.from_numpy(whole.copy())[inside]
    return y_BXD if skip_D is None else y_BXD + skip_D * u_BXD


def by_sums(dy_BXD, u_BXD, ahead, widths):
    """The lag products as the sums that define them."""
    g_DW = torch.zeros(u_BXD.shape[-1], *widths, dtype=u_BXD.dtype)
    for w in itertools.product(*map(range, widths)):
        lag, sizes = [at - M for at, M in zip(w, ahead, strict=True)], u_BXD.shape[1:-1]
        late = tuple(slice(max(x, 0), max(size + min(x, 0), 0)) for x, size in zip(lag, sizes, strict=True))
        soon = tuple(
            slice(max(-x, 0), max(size - max(x, 0), 0)) for x, size in zip(lag, u_BXD.shape[1:-1], strict=True)
        )
        g_DW[:, *w] = (dy_BXD[:, *late] * u_BXD[:, *soon]).flatten(0, -2).sum(0)
    return g_DW


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_equals_scipy_in_every_form(case):
    want, (u_BXD, *_, skip_D) = by_scipy(*case), case
    for form in ("reference", None):
        with use_backend(form):
            assert_close(long_conv_nd(*case), want, **EQUAL)
    taps, axes = of(*case)
    if u_BXD.numel():
        for form in (_grid.by_passes, _grid.by_transform):
            y_BXD = form(u_BXD, _grid.trim(taps, axes, torch.float64), axes)
            assert_close(y_BXD if skip_D is None else y_BXD + skip_D * u_BXD, want, **EQUAL)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("side", ["past", "future", "both", "short", "long"])
def test_any_sides_meet(grid, side):
    taps, ahead = [], []
    for size in grid:
        W, M = {"past": (size, 0), "future": (size, size), "both": (2 * size - 1, size - 1)}.get(
            side, (2, 1) if side == "short" else (5 * size, 3 * size)
        )
        taps.append(randn(2, 3, W))
        ahead.append(M)
    case = randn(2, *grid, 3), tuple(ahead), *taps, *[None] * (3 - len(taps)), randn(3)
    want = by_scipy(*case)
    assert_close(long_conv_nd(*case), want, **EQUAL)
    assert_close(long_conv_nd.reference(*case), want, **EQUAL)


@pytest.mark.parametrize("case", LAGS, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_lag_products_equal_their_sums(case):
    want = by_sums(*case)
    assert_close(long_conv_nd_lags(*case), want, **EQUAL)
    assert_close(long_conv_nd_lags.reference(*case), want, **EQUAL)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_gradients_in_tiles_are_those_of_autograd_through_the_reference(case, monkeypatch):
    monkeypatch.setattr(torch_cpu, "TILE", 300)  # several tiles along both the batch and the channels
    inputs = [x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x for x in case]
    leaves, weight = [x for x in inputs if isinstance(x, torch.Tensor)], torch.randn_like(case[0])
    got = torch.autograd.grad((long_conv_nd(*inputs) * weight).sum(), leaves)
    want = torch.autograd.grad((long_conv_nd.reference(*inputs) * weight).sum(), leaves)
    assert_close(got, want, **EQUAL)


def test_a_single_axis_is_long_conv():
    u, k, back, skip = randn(2, 37, 3), randn(3, 29), randn(3, 12), randn(3)
    taps_RDW = torch.cat([back.flip(1), k], 1)[None]
    assert_close(long_conv_nd(u, (12,), taps_RDW, None, None, skip), long_conv(u, k, back, skip), **EQUAL)


def test_the_form_with_fewer_operations_runs():
    """Passes cost as many 1-D transforms as rank and axes say; one transform over all axes does not mind the rank."""

    def ratio(grid, rank):
        axes = _grid.axes_of(grid, [size - 1 for size in grid], [2 * size - 1 for size in grid])
        shape = (1, *grid, 16)
        return _grid.passes_macs(shape, rank, axes) / _grid.transform_macs(shape, rank, axes)

    assert ratio((64, 64), 1) < 1 < ratio((64, 64), 2)
    assert ratio((32, 32, 32), 2) < 1 < ratio((32, 32, 32), 3)
    for case in CASES:
        taps, axes = of(*case)
        if case[0].numel():
            counts = [count(case[0].shape, len(taps[0]), axes) for count in (_grid.passes_macs, _grid.transform_macs)]
            assert long_conv_nd.floor(*case).macs == (counts[0] if len(axes) == 1 else min(counts))
            assert count_macs(long_conv_nd, *case).total == long_conv_nd.floor(*case).macs


def test_the_count_of_passes_is_the_floor_of_their_convolutions():
    for case in CASES:
        taps, axes = of(*case)
        if not case[0].numel():
            continue
        total = 0
        for k_RDW, at, number in zip(_grid.trim(taps, axes, torch.float64), axes, itertools.count(1)):
            lines = case[0].movedim(number, -2).flatten(0, -3)
            back = k_RDW[0, :, : at.ahead] if at.ahead else None
            total += len(k_RDW) * long_conv.floor(lines, k_RDW[0, :, at.ahead :], back).macs
        assert total == _grid.passes_macs(case[0].shape, len(taps[0]), axes)


@pytest.mark.parametrize("grid", [(16, 32), (16, 16, 32)], ids=str)
def test_the_count_of_the_transform_is_what_its_operators_count(grid):
    axes = _grid.axes_of(grid, [size - 1 for size in grid], [2 * size - 1 for size in grid])
    counted = count_macs(lambda u: _grid.from_spectrum(_grid.spectrum(u, axes), axes), randn(2, *grid, 2)).total
    assert counted == 2 * 2 * 2 * _grid.grid_macs(axes)  # powers of two: elsewhere ours rounds log2 down


def test_keeps_its_inputs_alone():
    grid = (16, 20)
    u, taps = randn(2, *grid, 8, dtype=torch.float32), [randn(3, 8, 2 * size - 1, dtype=torch.float32) for size in grid]
    inputs = [x.requires_grad_() for x in (u, *taps)]
    kept = saved_bytes(lambda *x: long_conv_nd(x[0], (15, 19), x[1], x[2], None, None), *inputs)
    assert kept == sum(x.nbytes for x in inputs)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_arithmetic_is_float32_inside(kind):
    u, first, second = randn(2, 9, 12, 4), randn(2, 4, 17), randn(2, 4, 23)
    narrow = [x.to(kind) for x in (u, first, second)]
    want = by_scipy(narrow[0].double(), (8, 11), narrow[1].double(), narrow[2].double())
    got = long_conv_nd(narrow[0], (8, 11), *narrow[1:])
    assert got.dtype == kind
    assert (got.double() - want).abs().max() <= torch.finfo(kind).eps * want.abs().max()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((randn(2, 3), (0,), randn(1, 3, 2)), "1 to 3 axes"),
        ((randn(2, 4, 4, 3), (0,), randn(1, 3, 2)), "2 axes"),
        ((randn(2, 4, 3), (0,), randn(1, 4, 2)), "rank, 3, taps"),
        ((randn(2, 4, 4, 3), (0, 0), randn(1, 3, 2), randn(2, 3, 2)), "one rank"),
        ((randn(2, 4, 3), (3,), randn(1, 3, 2)), "0 to 2, not 3"),
        ((randn(2, 4, 3), (0,), randn(1, 3, 2), None, None, randn(4)), "skip_D"),
    ],
)
def test_refuses_shapes_that_do_not_fit(inputs, words):
    with pytest.raises(ConfigError, match=words):
        long_conv_nd(*inputs)


def test_lags_refuse_shapes_that_do_not_fit():
    with pytest.raises(ConfigError, match="each of 1 to 3 axes"):
        long_conv_nd_lags(randn(1, 4, 4, 2), randn(1, 4, 4, 2), (0,), (2,))
