"""The short convolution against conv1d, and its laws: chunks join, packed = separate, pads do nothing."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.short_conv import short_conv

BACKENDS = ["reference", "numba_cpu", "triton_cuda"]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("K", [2, 3, 4, 5, 6, 7])
def test_equals_conv1d(backend: str, K: int) -> None:
    x_BTD, weight_DK, bias_D = draw(2, 9, 5), draw(5, K), draw(5)
    with use_backend(backend):
        y_BTD, after_BKD = short_conv(x_BTD, weight_DK, bias_D, activation="silu")
    want = F.conv1d(F.pad(x_BTD.mT, (K - 1, 0)), weight_DK[:, None], bias_D, groups=5).mT
    assert_close(y_BTD, F.silu(want))
    assert torch.equal(after_BKD, x_BTD[:, 10 - K :])


@pytest.mark.parametrize("backend", BACKENDS)
def test_centred_equals_conv1d_with_padding_on_both_sides(backend: str) -> None:
    x_BTD, weight_DK = draw(2, 9, 5), draw(5, 5)
    with use_backend(backend):
        y_BTD, _ = short_conv(x_BTD, weight_DK, ahead=2)
    assert_close(y_BTD, F.conv1d(x_BTD.mT, weight_DK[:, None], groups=5, padding=2).mT)


@pytest.mark.parametrize("backend", ["reference", "triton_cuda"])
@pytest.mark.parametrize("cuts", [[1] * 9, [4, 5], [2, 0, 7]])
def test_chunks_join(backend: str, cuts: list[int]) -> None:
    x_BTD, weight_DK, state = draw(2, 9, 3), draw(3, 4), draw(2, 3, 3)
    whole, last = short_conv.reference(x_BTD, weight_DK, None, state)
    pieces = []
    for x in x_BTD.split(cuts, 1):
        with use_backend(backend if x.shape[1] else None):
            y, state = short_conv(x, weight_DK, None, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), whole)
    assert_close(state, last)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_equals_separate(backend: str) -> None:
    x_BTD, weight_DK, before_BKD = draw(1, 12, 3), draw(3, 4), draw(1, 3, 3)
    segments_BT = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3]])
    with use_backend(backend):
        y_BTD, after_BKD = short_conv(x_BTD, weight_DK, None, before_BKD, segments_BT)
    parts = [short_conv.reference(x, weight_DK, None, None)[0] for x in x_BTD[:, 2:].split([5, 3, 2], 1)]
    first, _ = short_conv.reference(x_BTD[:, :2], weight_DK, None, before_BKD)
    assert_close(y_BTD, torch.cat([first, *parts], 1))
    assert_close(after_BKD, F.pad(x_BTD[:, 10:], (0, 0, 1, 0)))  # of the last segment alone


@pytest.mark.parametrize("backend", BACKENDS)
def test_pads_do_nothing(backend: str) -> None:
    x_BTD, weight_DK, bias_D, before_BKD = draw(3, 8, 3), draw(3, 4), draw(3), draw(3, 3, 3)
    lengths_B = torch.tensor([8, 2, 0])
    x_BTD[1, 2:], x_BTD[2] = torch.nan, torch.nan
    with use_backend(backend):
        y_BTD, after_BKD = short_conv(x_BTD, weight_DK, bias_D, before_BKD, None, lengths_B, "silu")
    for b, length in enumerate(lengths_B.tolist()):
        row = x_BTD[b : b + 1, :length]
        y, after = short_conv.reference(row, weight_DK, bias_D, before_BKD[b : b + 1], None, None, "silu")
        assert_close(y_BTD[b, :length], y[0])
        assert torch.equal(after_BKD[b], after[0])
        assert not y_BTD[b, length:].any()


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_fewer_steps_than_taps(length: int) -> None:
    x_BTD, before_BKD = draw(2, length, 3), draw(2, 3, 3)
    y_BTD, after_BKD = short_conv(x_BTD, draw(3, 4), None, before_BKD)
    assert y_BTD.shape == x_BTD.shape
    assert torch.equal(after_BKD, torch.cat([before_BKD, x_BTD], 1)[:, length:])


@pytest.mark.parametrize("threads", [1, 2])
def test_float32_extremes_and_threads(threads: int) -> None:
    x_BTD = torch.linspace(-200, 200, 2 * 300 * 64).reshape(2, 300, 64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with use_backend("numba_cpu"):
            y_BTD, _ = short_conv(x_BTD, torch.ones(64, 2), None, activation="silu")
    finally:
        torch.set_num_threads(before)
    want, _ = short_conv.reference(x_BTD.double(), torch.ones(64, 2).double(), None, activation="silu")
    assert_close(y_BTD, want.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"ahead": 4}, {"ahead": -1}])
def test_wrong_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        short_conv(draw(2, 5, 3), draw(3, 4), **options)


@pytest.mark.parametrize("backend", ["reference", "numba_cpu", "triton_cuda"])
def test_segments_may_lie_transposed(backend):
    x_BTD, weight_DK = torch.randn(3, 5, 2), torch.randn(2, 3)
    segments_BT = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    want = short_conv.reference(x_BTD, weight_DK, None, None, segments_BT)
    with use_backend(backend):
        got = short_conv(x_BTD, weight_DK, None, None, segments_BT.T.contiguous().T)
    torch.testing.assert_close(got, want)
