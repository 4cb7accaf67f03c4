import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import count_macs
from seqloom.core.errors import ConfigError
from seqloom.layers.block_linear import BlockLinear


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (2, 5, 6), (0, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_dense_matrix_of_its_blocks(blocks, shape, bias):
    module, x = BlockLinear(6, blocks, bias).double(), torch.randn(shape, dtype=torch.float64)
    if bias:
        torch.nn.init.normal_(module.bias)
    want = torch.nn.functional.linear(x, torch.block_diag(*module.weight), module.bias)
    assert_close(module(x), want)
    got, wanted = (torch.autograd.grad(y.square().sum(), list(module.parameters())) for y in (module(x), want))
    assert_close(got, wanted)


def test_weights_and_operations_shrink_with_the_blocks():
    dense, four = BlockLinear(8, 1), BlockLinear(8, 4)
    assert (dense.weight.numel(), four.weight.numel()) == (64, 16)
    x = torch.randn(3, 8)
    assert (count_macs(dense, x).total, count_macs(four, x).total) == (3 * 64, 3 * 16)


def test_outputs_start_with_the_size_of_the_inputs():
    x = torch.randn(512, 256)
    for blocks in (1, 4):
        assert float(BlockLinear(256, blocks)(x).detach().std()) == pytest.approx(1, rel=0.05)


def test_autocast_keeps_the_narrow_dtype():
    with torch.autocast("cpu", torch.bfloat16):
        assert {BlockLinear(8, blocks)(torch.randn(2, 8)).dtype for blocks in (1, 2)} == {torch.bfloat16}


@pytest.mark.parametrize("blocks", [0, 3])
def test_blocks_that_do_not_divide_the_width_are_refused(blocks):
    with pytest.raises(ConfigError, match="blocks"):
        BlockLinear(8, blocks)
