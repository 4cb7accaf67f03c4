import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes
from seqloom.layers.quantiles import Quantiles
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_regression import CausalRegression

SIZES = Sizes(vocabulary=9, channels=3, targets=1)


def model(mixers="gru", **options):
    backbone = Backbone.Config(width=8, layers=2, mixers=pattern(mixers))
    own = CausalRegression(SIZES, CausalRegression.Config(backbone=backbone, **options)).double().eval()
    torch.nn.init.normal_(own.head.map.weight)  # it begins at zero
    return own


def given(rows=2, length=7):
    return torch.randint(0, 9, (rows, length)), torch.randn(rows, length, 3, dtype=torch.float64)


@pytest.mark.parametrize("mixers", ["gru", "attention", "s4d"])
@pytest.mark.parametrize("head", [None, Quantiles.Config(count=3)])
def test_step_by_step_is_the_whole(mixers, head):
    own = model(mixers) if head is None else model(mixers, head=head)
    tokens, values = given()
    whole = own(tokens, values_BTC=values)[0]["distribution"]
    state, steps = own.initial_state(2), []
    for t in range(7):
        outputs, state = own(tokens[:, t : t + 1], state, values_BTC=values[:, t : t + 1])
        steps.append(outputs["distribution"])
    assert whole.shape == (2, 7, 1, 2 if head is None else 3)
    assert_close(torch.cat(steps, 1), whole)


def test_nothing_leaks_from_the_future():
    own, (tokens, values) = model("attention"), given(1)
    values.requires_grad_()
    (gradient,) = torch.autograd.grad(own(tokens, values_BTC=values)[0]["distribution"][0, 3].sum(), values)
    assert bool(gradient[0, :4].any())
    assert not gradient[0, 4:].any()


def test_padding_changes_nothing():
    own, (tokens, values) = model(), given(2, 5)
    layout = Layout(lengths_B=torch.tensor([5, 3]))
    padded = own(tokens, values_BTC=values, layout=layout)[0]["distribution"]
    assert_close(padded[1:, :3], own(tokens[1:, :3], values_BTC=values[1:, :3])[0]["distribution"])


def test_a_fresh_model_tells_the_middle():
    fresh = CausalRegression(SIZES)
    assert not fresh(given()[0])[0]["distribution"].any()


def test_what_cannot_work_is_refused():
    for sizes in (Sizes(vocabulary=9), Sizes(targets=1)):
        with pytest.raises(ConfigError, match="reads symbols or values and tells numbers"):
            CausalRegression(sizes)
    with pytest.raises(ConfigError, match="not a state of a CausalRegression"):
        model()(given()[0], object())
