import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqloom.layers.distil import Distil


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8])
def test_half_of_the_positions_are_left(length):
    torch.manual_seed(0)
    layer, x_BTD = Distil(4).eval(), torch.randn(2, length, 4)
    assert layer(x_BTD).shape == (2, -(-length // 2), 4)


@pytest.mark.parity
def test_equals_the_layer_of_transformers():
    theirs = pytest.importorskip("transformers.models.informer.modeling_informer").InformerConvLayer(4)
    torch.manual_seed(0)
    layer, x_BTD = Distil(4), torch.randn(3, 9, 4)
    layer.conv.load_state_dict(theirs.downConv.state_dict())
    layer.norm.load_state_dict(theirs.norm.state_dict())
    for mode in (True, False):
        assert_close(layer.train(mode)(x_BTD), theirs.train(mode)(x_BTD))


def test_equals_the_lines_of_the_authors():
    torch.manual_seed(0)
    layer, x_BTD = Distil(4).eval(), torch.randn(3, 9, 4)
    ring = torch.cat([x_BTD[:, -1:], x_BTD, x_BTD[:, :1]], 1).mT
    z = nn.functional.conv1d(ring, layer.conv.weight, layer.conv.bias)
    z = nn.functional.elu(layer.norm(z))
    want = torch.stack([z[..., max(0, t - 1) : t + 2].amax(-1) for t in range(0, 9, 2)], 1)
    assert_close(layer(x_BTD), want)
