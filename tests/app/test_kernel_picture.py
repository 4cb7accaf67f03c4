"""Pictures of kernels: what is drawn are the kernel's own values."""

import io
import re

import numpy as np
import pytest
import torch

from seqloom.app._kernel_picture import Kernels, Line, drawing, kernels_of, write_picture
from seqloom.core.errors import ConfigError
from seqloom.mixers.recurrent.gru import GRU
from seqloom.mixers.ssm.lru import LRU
from seqloom.mixers.ssm.s4d import S4D


def test_the_kernels_are_those_of_the_mixer():
    found = kernels_of("s4d", S4D.Config(), 7, 30)
    torch.manual_seed(0)
    want_RDL = S4D(7).kernel(30)
    assert found.names == ("0, 0", "0, 2", "0, 4", "0, 6")
    np.testing.assert_array_equal(found.values_KT, want_RDL[0, ::2].detach().double().numpy())
    assert len(kernels_of("lru", LRU.Config(state=4), 2, 9).names) == 4
    assert len(kernels_of("s4d", S4D.Config(), 1, 9).names) == 1


def test_drawing_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    kernels_of("s4d", S4D.Config(), 3, 9)
    assert torch.equal(torch.rand(1), want)


@pytest.mark.parametrize("length", [2, 100, 5000])
def test_a_curve_reaches_every_extreme_at_its_place(length):
    values_KT = np.random.default_rng(0).normal(size=(1, length))
    curve = [item for item in drawing(Kernels("k", ("0",), values_KT)) if isinstance(item, Line)][-1]
    x, y = np.array(curve.points).T
    assert (np.diff(x) >= 0).all()
    assert len(x) <= 4 * 560
    zero = [item for item in drawing(Kernels("k", ("0",), values_KT)) if isinstance(item, Line) and item.width == 1.0]
    height, low, high = y.max() - y.min(), min(values_KT.min(), 0), max(values_KT.max(), 0)
    scale = height / np.ptp(values_KT) if length > 2 else None
    if scale is not None:
        assert zero[0].points[0][1] == pytest.approx(y.min() + (values_KT.max() - 0) * scale)
        assert height == pytest.approx(scale * (high - low))
    at = int(values_KT.argmin())
    assert x[y.argmax()] == pytest.approx(64 + 560 * np.log(at + 1) / np.log(length))


def test_a_picture_is_small_and_no_name_is_markup(tmp_path):
    values_KT = np.random.default_rng(0).normal(size=(4, 1024))
    file = write_picture(Kernels("<k>", ("0", "1", "2", "<x>"), values_KT), tmp_path / "k.svg")
    text = file.read_text()
    assert "<k>" not in text
    assert "<x>" not in text
    assert file.stat().st_size < 60_000
    assert len(re.findall("<polyline", text)) >= 4
    image = pytest.importorskip("PIL.Image")
    png = write_picture(Kernels("k", ("0",), values_KT[:1]), tmp_path / "k.png").read_bytes()
    assert image.open(io.BytesIO(png)).size == (1280, 640)


def test_a_flat_kernel_is_drawn(tmp_path):
    assert write_picture(Kernels("k", ("0",), np.zeros((1, 9))), tmp_path / "k.svg").is_file()


def test_a_mixer_without_a_kernel_says_so():
    with pytest.raises(ConfigError, match="no kernel"):
        kernels_of("gru", GRU.Config(), 4, 9)
