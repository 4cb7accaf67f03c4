import pytest
import torch
from torch.nn.functional import gelu, linear
from torch.testing import assert_close

from seqloom.core.component import Value
from seqloom.core.counting import count_macs
from seqloom.core.errors import ConfigError
from seqloom.layers.mlp import MLP
from seqloom.layers.monarch import Monarch
from seqloom.models.backbone import Backbone

SIZES = [(16, 16), (12, 20), (7, 13), (30, 5), (64, 64)]


def matrix(module):
    """What the map is, column by column, from permutations and blocks that torch writes."""
    if module.left is None:
        return torch.block_diag(*module.right)
    b, L = module.blocks, module.left.shape[1]
    between = torch.eye(b * b, dtype=module.right.dtype)[torch.arange(b * b).view(b, b).T.flatten()]
    after = torch.eye(b * L, dtype=module.right.dtype)[torch.arange(b * L).view(b, L).T.flatten()]
    whole = after @ torch.block_diag(*module.left) @ between @ torch.block_diag(*module.right)
    return whole[: module.outputs, : module.inputs]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_dense_matrix(sizes, shape, bias):
    module = Monarch(*sizes, bias=bias).double()
    x = torch.randn(*shape, sizes[0], dtype=torch.float64)
    want = linear(x, matrix(module), module.bias)
    assert_close(module(x), want)
    got, wanted = (torch.autograd.grad(y.square().sum(), list(module.parameters())) for y in (module(x), want))
    assert_close(got, wanted)


@pytest.mark.parametrize(("blocks", "sizes"), [(1, (5, 3)), (2, (6, 4)), (0, (8, 12)), (3, (9, 6))])
def test_blocks_equal_the_block_diagonal_matrix(blocks, sizes):
    module = Monarch(*sizes, blocks, "blocks").double()
    x = torch.randn(2, 5, sizes[0], dtype=torch.float64)
    assert_close(module(x), linear(x, matrix(module), module.bias))
    assert len(module.right) == (blocks or 4)


def test_every_output_reads_every_input_but_not_with_blocks_alone():
    x = torch.ones(16).double()
    for kind, full in (("monarch", 256), ("blocks", 64)):
        module = Monarch(16, 16, kind=kind).double()
        slope = torch.autograd.functional.jacobian(module, x)
        assert int(slope.count_nonzero()) == full


@pytest.mark.parametrize("kind", ["monarch", "blocks"])
@pytest.mark.parametrize("sizes", [(256, 256), (256, 680), (1000, 200)])
def test_outputs_begin_as_large_as_those_of_a_dense_layer(kind, sizes):
    torch.manual_seed(0)
    x = torch.randn(512, sizes[0])
    got, want = (float(layer(x).detach().std()) for layer in (Monarch(*sizes, kind=kind), torch.nn.Linear(*sizes)))
    assert got == pytest.approx(want, rel=0.05)


@pytest.mark.parametrize("sizes", SIZES)
def test_operations_are_what_is_counted(sizes):
    module = Monarch(*sizes)
    assert module.macs == count_macs(module, torch.randn(3, sizes[0])).total // 3
    b = module.blocks
    assert module.macs == b * (b * -(-sizes[0] // b) + b * -(-sizes[1] // b))


def test_a_square_map_has_two_roots_of_its_size_in_weights_a_channel():
    module = Monarch(1024, 1024, bias=False)
    assert sum(p.numel() for p in module.parameters()) == 2 * 1024 * 32


@pytest.mark.parametrize("kind", ["monarch", "blocks"])
def test_autocast_keeps_the_narrow_dtype(kind):
    module, x = Monarch(16, 32, kind=kind), torch.randn(200, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16
    error = (y.float() - module(x)).norm() / module(x).norm()
    assert (
        float(error.detach()) < 4 * torch.finfo(torch.bfloat16).eps
    )  # inputs, factors, the sums between and the result


@pytest.mark.parametrize("structure", ["monarch", "blocks"])
def test_the_channel_mixer_of_the_paper(structure):
    mlp = MLP(24, MLP.Config(kind="geglu", hidden=2.0, structure=structure)).double()
    x = torch.randn(2, 3, 24, dtype=torch.float64)
    gate, value = (x @ matrix(mlp.up).T).chunk(2, -1)
    assert_close(mlp(x), (gelu(gate) * value) @ matrix(mlp.down).T)
    assert mlp.flops(6) == 2 * count_macs(mlp, x).total


@pytest.mark.parametrize("structure", ["monarch", "blocks"])
def test_a_backbone_takes_it(structure):
    mixer = MLP.Config(structure=structure)
    config = Backbone.Config(width=16, layers=2, mlp=mixer)
    assert Value.from_json(config.to_json()) == config
    torch.manual_seed(0)
    backbone, alone = config.build(), MLP(16, mixer)
    x = torch.randn(2, 5, 16)
    backbone(x)[0][-1].square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    got, want = (float(part.down.weight.detach().std()) for part in (backbone.layers[0].mlp, alone))
    assert got == pytest.approx(
        want / 2, rel=0.3
    )  # the map that enters the residual stream is divided by sqrt(2 layers)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: Monarch(0, 4), "0, 4"),
        (lambda: Monarch(4, 4, -1), "-1"),
        (lambda: Monarch(4, 4, 5), "5 blocks"),
        (lambda: Monarch(6, 8, kind="blocks"), "4 blocks"),
        (lambda: Monarch(4, 4, kind="dense"), "dense"),
        (lambda: MLP(8, MLP.Config(blocks=2)), "blocks = 2"),
    ],
)
def test_impossible_options_are_refused(call, word):
    with pytest.raises(ConfigError, match=word):
        call()
