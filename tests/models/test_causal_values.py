import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes
from seqloom.layers.quantiles import Quantiles
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_values import CausalValues

SIZES = Sizes(channels=3, values=2)


def model(mixers="gru", **options):
    backbone = Backbone.Config(width=8, layers=2, mixers=pattern(mixers))
    return CausalValues(SIZES, CausalValues.Config(backbone=backbone, **options)).double().eval()


@pytest.mark.parametrize("mixers", ["gru", "attention", "s4d"])
@pytest.mark.parametrize("head", [None, Quantiles.Config(count=3)])
def test_step_by_step_is_the_whole(mixers, head):
    own = model(mixers) if head is None else model(mixers, head=head)
    torch.nn.init.normal_(own.head.map.weight)
    values = torch.randn(2, 7, 3, dtype=torch.float64)
    whole = own(None, values_BTC=values)[0]["distribution"]
    state, steps = own.initial_state(2), []
    for t in range(7):
        outputs, state = own(None, state, values_BTC=values[:, t : t + 1])
        steps.append(outputs["distribution"])
    assert_close(torch.cat(steps, 1), whole)


def test_nothing_leaks_from_the_future():
    own = model("attention")
    torch.nn.init.normal_(own.head.map.weight)
    values = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(own(None, values_BTC=values)[0]["distribution"][0, 3].sum(), values)
    assert bool(gradient[0, :4].any())
    assert not gradient[0, 4:].any()


def test_a_fresh_model_is_a_random_walk_and_without_residual_a_constant():
    values = torch.randn(1, 4, 3, dtype=torch.float64)
    assert_close(model()(None, values_BTC=values)[0]["distribution"][..., 0], values[..., :2])
    assert not model(residual=False)(None, values_BTC=values)[0]["distribution"].any()


def test_padding_changes_nothing():
    own = model()
    torch.nn.init.normal_(own.head.map.weight)
    values = torch.randn(2, 5, 3, dtype=torch.float64)
    padded = own(None, values_BTC=values, layout=Layout(lengths_B=torch.tensor([5, 3])))[0]["distribution"]
    alone = own(None, values_BTC=values[1:, :3])[0]["distribution"]
    assert_close(padded[1:, :3], alone)


@pytest.mark.parametrize(
    "sizes", [Sizes(), Sizes(channels=2), Sizes(channels=1, values=2), Sizes(vocabulary=9, channels=1, values=1)]
)
def test_sizes_that_cannot_be_are_refused(sizes):
    with pytest.raises(ConfigError, match="needs values and no symbols"):
        CausalValues(sizes)


def test_symbols_are_refused():
    with pytest.raises(ConfigError, match="reads values alone"):
        model()(torch.tensor([[6]]))
