import pytest
import torch
from torch.nn.functional import gelu, silu
from torch.testing import assert_close

from seqloom.core.counting import count_macs
from seqloom.core.errors import ConfigError
from seqloom.layers.mlp import MLP


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "swiglu"])
@pytest.mark.parametrize("bias", [True, False])
def test_values_by_the_formula(kind, bias):
    mlp = MLP(6, MLP.Config(kind=kind, hidden=2.0, bias=bias)).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    up = x @ mlp.up.weight.T + (mlp.up.bias if bias else 0)
    n = mlp.hidden
    if kind == "swiglu":
        inner = silu(up[..., :n]) * up[..., n:]
    else:
        inner = gelu(up, approximate="tanh" if kind == "gelu_tanh" else "none")
    assert_close(mlp(x), inner @ mlp.down.weight.T + (mlp.down.bias if bias else 0))


@pytest.mark.parametrize(
    ("width", "hidden", "multiple", "want"),
    [(24, 50 / 24, 1, 50), (64, 8 / 3, 8, 168), (4, 0.1, 8, 8), (3, 43 / 3, 1, 43)],
)
def test_the_hidden_width_is_rounded_as_asked(width, hidden, multiple, want):
    assert MLP(width, MLP.Config(hidden=hidden, multiple=multiple)).hidden == want


@pytest.mark.parametrize("config", [MLP.Config(hidden=0.0), MLP.Config(hidden=-1.0), MLP.Config(multiple=0)], ids=str)
def test_widths_that_cannot_be_are_refused(config):
    with pytest.raises(ConfigError, match="positive"):
        MLP(8, config)


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_operations_are_what_is_counted(kind):
    mlp = MLP(16, MLP.Config(kind=kind))
    assert mlp.flops(5) == 2 * count_macs(mlp, torch.randn(1, 5, 16)).total
