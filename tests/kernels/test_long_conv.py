import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.long_conv import _lags, _tiles, long_conv, long_conv_backward
from seqloom.kernels.long_conv.chunks import chunk_long_conv, history
from seqloom.kernels.long_conv.torch_cpu import refuses

CASES = list(long_conv.generate(torch.Generator().manual_seed(0), torch.float64))
SIZEABLE = [case for case in CASES if refuses(*case) is None]
FORMS = ("reference", "torch_cpu")


def by_numpy(u, k, back=None, skip=None, before=None):
    """numpy.convolve row by row and channel by channel, of the whole line of inputs, cut to the T outputs."""
    T, S = u.shape[1], 0 if before is None else before.shape[1]
    y = torch.zeros_like(u)
    for b in range(len(u)):
        for d in range(u.shape[2]):
            now = u[b, :, d].numpy()
            line = now if before is None else np.concatenate([before[b, :, d].numpy(), now])
            if T:
                y[b, :, d] += torch.from_numpy(np.convolve(line, k[d].numpy())[S : S + T])
            if T and back is not None:
                ahead = np.convolve(now[::-1], np.concatenate([[0.0], back[d].numpy()]))[:T]
                y[b, :, d] += torch.from_numpy(ahead[::-1].copy())
    return y if skip is None else y + skip * u


def randn(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def given(inputs):
    return [x for x in inputs if x is not None]


def forms(inputs):
    """The forms that serve these shapes: tiny ones have the direct form alone."""
    return FORMS[:1] if _tiles.refuses(tuple(inputs)) else FORMS


def run(form, *inputs):
    with use_backend(form):
        return long_conv(*inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_equals_numpy(case):
    for form in forms(case):
        assert_close(run(form, *case), by_numpy(*case), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("T", [0, 1, 2, 3, 12, 13, 31, 64])
@pytest.mark.parametrize(
    ("L", "M", "S"), [(0, 0, 0), (1, 0, 5), (0, 3, 0), (13, 0, 3), (40, 0, 60), (29, 31, 28), (2, 90, 1)]
)
def test_any_lengths_meet(T, L, M, S):
    inputs = randn(2, T, 3), randn(3, L), randn(3, M) if M else None, randn(3), randn(2, S, 3) if S else None
    want = by_numpy(*inputs) if L else by_numpy(inputs[0], torch.zeros(3, 1).double(), *inputs[2:4])
    for form in forms(inputs):
        assert_close(run(form, *inputs), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", SIZEABLE, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_gradients_of_the_tiles_are_those_of_the_reference(case, monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", 300)  # several tiles along both the batch and the channels
    monkeypatch.setattr(_tiles, "CHANNELS", 2)
    inputs = [None if x is None else x.clone().requires_grad_() for x in case]
    weight = torch.randn_like(case[0])
    got, want = (
        torch.autograd.grad((run(form, *inputs) * weight).sum(), given(inputs)) for form in ("torch_cpu", "reference")
    )
    assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("T", "L", "M", "S"), [(6, 14, 0, 4), (9, 8, 7, 3), (3, 30, 0, 40), (2, 5, 0, 9)])
def test_gradcheck(T, L, M, S):
    case = randn(2, T, 2), randn(2, L), randn(2, M) if M else None, randn(2), randn(2, S, 2)
    inputs = [None if x is None else x.requires_grad_() for x in case]
    torch.autograd.gradcheck(long_conv, inputs)
    torch.autograd.gradgradcheck(long_conv, inputs)


def test_backward_reference_equals_its_tiles():
    for case in long_conv_backward.generate(torch.Generator().manual_seed(0), torch.float64):
        if len(forms(case[1:])) == 1:
            continue
        with use_backend("torch_cpu"):
            got = long_conv_backward(*case)
        assert_close(got, long_conv_backward.reference(*case), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_arithmetic_is_float32_inside(kind):
    u, k = randn(2, 300, 4), randn(4, 300) * torch.exp(-torch.arange(300) / 50)
    want = by_numpy(u.to(kind).double(), k.to(kind).double())
    got = long_conv(u.to(kind), k.to(kind))
    assert got.dtype == kind
    rounding = torch.finfo(kind).eps if kind != torch.float32 else 16 * torch.finfo(kind).eps
    assert (got.double() - want).abs().max() <= rounding * want.abs().max()


def test_autocast_leaves_it_alone():
    u, k = randn(2, 100, 4, dtype=torch.float32), randn(4, 100, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = long_conv(u, k)
    assert torch.equal(got, long_conv(u, k))


def test_the_future_leaks_no_more_than_rounding():
    """An impulse of 1e4 in the last input changes what came before by less than its own rounding."""
    u, k = randn(1, 1021, 3, dtype=torch.float32), randn(3, 1021, dtype=torch.float32)
    spiked = u.clone()
    spiked[:, -1] += 1e4
    leak = (long_conv(spiked, k) - long_conv(u, k))[:, :-1].abs().max()
    assert leak <= 1e-6 * 1e4 * k.abs().max()


def test_the_shortest_transform_that_cannot_wrap():
    """One number less and the last output would fold onto the first; no zero padding to twice the length."""
    u, k = randn(1, 100, 1), randn(1, 29)
    assert _lags.fft_length(100, 0, k, None) == 128
    assert _lags.fft_length(100, 0, u[0].T, None) == 200
    assert _lags.fft_length(100, 28, k, None) == 128  # earlier inputs take the place of padding
    next_fast_len = pytest.importorskip("scipy.fft").next_fast_len
    for least in (1, 2, 127, 128, 129, 4097, 8191, 10**6 + 3):
        assert least <= _lags.fast_length(least) <= 1.17 * least + 1
        assert next_fast_len(_lags.fast_length(least), real=True) == _lags.fast_length(least)


def test_saves_only_its_inputs():
    u, k = randn(2, 500, 8, dtype=torch.float32).requires_grad_(), randn(8, 500, dtype=torch.float32).requires_grad_()
    assert saved_bytes(long_conv, u, k) == u.nbytes + k.nbytes


@pytest.mark.parametrize("chunk", [1, 7, 16, 200])
@pytest.mark.parametrize(("L", "M", "S"), [(1, 0, 0), (9, 0, 4), (9, 5, 20), (64, 40, 0)])
def test_chunks_equal_the_whole(chunk, L, M, S):
    u, k, back, skip, before = randn(2, 61, 3), randn(3, L), randn(3, M), randn(3), randn(2, S, 3)
    back, before = back if M else None, before if S else None
    want = long_conv(u, k, back, skip, before)
    assert_close(chunk_long_conv(u, k, chunk, back, skip, before), want, rtol=1e-11, atol=1e-11)


def test_chunks_of_nothing():
    assert chunk_long_conv(randn(2, 0, 3), randn(3, 5), 4).shape == (2, 0, 3)
    with pytest.raises(ConfigError, match="chunk"):
        chunk_long_conv(randn(2, 4, 3), randn(3, 5), 0)


def test_history_carries_a_stream_with_rows_of_different_lengths():
    u, k = randn(3, 40, 2), randn(2, 9)
    want = long_conv(u, k)
    lengths = torch.tensor([0, 5, 12])
    state = history(u[:, :0], None, 8)
    assert state.shape == (3, 8, 2)
    state = history(u[:, :12], state, 8, lengths)
    for row, length in enumerate(lengths.tolist()):
        got = long_conv(u[row : row + 1, length:], k, before_BSD=state[row : row + 1])
        assert_close(got, want[row : row + 1, length:], rtol=1e-11, atol=1e-11)


def test_wrong_shapes_are_refused():
    u = randn(2, 30, 3)
    for bad in ([randn(1, 30)], [randn(3, 30), randn(1, 9)], [randn(3, 30), None, randn(1)]):
        with pytest.raises(ConfigError, match=r"\(3"):
            long_conv(u, *bad)
    with pytest.raises(ConfigError, match="before_BSD"):
        long_conv(u, randn(3, 30), before_BSD=randn(1, 4, 3))
    with pytest.raises(ConfigError, match="batch, time, channels"):
        long_conv(u[0], randn(3, 30))


def test_compiles_whole():
    u, k = randn(2, 64, 3).requires_grad_(), randn(3, 64).requires_grad_()
    compiled = torch.compile(long_conv.__call__, backend="aot_eager", fullgraph=True)
    got, want = compiled(u, k), long_conv(u, k)
    assert_close(got, want)
    assert_close(torch.autograd.grad(got.sum(), (u, k)), torch.autograd.grad(want.sum(), (u, k)))


def test_the_custom_op_is_sound():
    inputs = [None if x is None else x.clone().requires_grad_() for x in SIZEABLE[0]]
    backend = next(b for b in long_conv.backends if b.name == "torch_cpu")
    torch.library.opcheck(backend.op, tuple(inputs))


def test_cost_counts_transforms():
    u, k = randn(2, 64, 3), randn(3, 64)
    n = 128
    assert long_conv.floor(u, k).macs == round(1.25 * n * math.log2(n)) * 3 * 5 + 4 * 2 * 3 * (n // 2 + 1)
