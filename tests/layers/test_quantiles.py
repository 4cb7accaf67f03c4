import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.layers.quantiles import Quantiles

integrate = pytest.importorskip("scipy.integrate")
metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture
def made():
    head = Quantiles(4, 2, Quantiles.Config(count=7)).double()
    torch.nn.init.normal_(head.map.weight)
    with torch.no_grad():
        return head, head(torch.randn(3, 4, dtype=torch.float64)[None], torch.randn(1, 3, 2, dtype=torch.float64))


def test_quantiles_rise(made):
    assert bool((made[1].diff(dim=-1) > 0).all())


def test_the_density_is_proper_and_the_quantiles_are_its_own(made):
    head, all_BTPK = made
    one = all_BTPK[0, 1, 0]

    def density(y):
        return float(head.log_prob(one[None], torch.tensor([y], dtype=torch.float64)).exp())

    knots = [-np.inf, *one.tolist(), np.inf]
    masses = [integrate.quad(density, low, high, epsabs=1e-12)[0] for low, high in itertools.pairwise(knots)]
    np.testing.assert_allclose(masses, np.full(8, 1 / 8), rtol=1e-6)
    for p in (0.004, 0.1, 0.125, 0.3, 0.5, 0.8, 0.875, 0.99):
        y = float(head.quantile(one[None], torch.tensor([p], dtype=torch.float64)))
        cut = sorted([*one[one < y].tolist(), y])
        below = sum(
            integrate.quad(density, low, high, epsabs=1e-12)[0] for low, high in zip([-np.inf, *cut], cut, strict=False)
        )
        assert below == pytest.approx(p, abs=1e-6)


def test_the_density_has_no_step_at_the_outer_quantiles(made):
    head, all_BTPK = made
    one = all_BTPK[0, 0, 1]
    for edge in (one[0], one[-1]):
        sides = torch.stack([edge - 1e-9, edge + 1e-9])
        inner, outer = head.log_prob(one.expand(2, -1), sides).tolist()
        assert inner == pytest.approx(outer, abs=1e-5)


def test_the_loss_is_sklearns_pinball_loss(made):
    head, all_BTPK = made
    y = torch.randn(1, 3, 2, dtype=torch.float64)
    for p, k in zip(head.levels_K.tolist(), range(7), strict=True):
        assert p == pytest.approx((k + 1) / 8)
    want = np.mean(
        [
            2 * metrics.mean_pinball_loss(y.ravel().numpy(), all_BTPK[..., k].ravel().numpy(), alpha=(k + 1) / 8)
            for k in range(7)
        ]
    )
    assert float(head.loss(all_BTPK, y).mean()) == pytest.approx(want)


def test_the_middle_is_the_median(made):
    head, all_BTPK = made
    assert_close(head.mean(all_BTPK), head.quantile(all_BTPK, torch.tensor(0.5, dtype=torch.float64)))


def test_gradients(made):
    head, all_BTPK = made
    y = torch.randn(1, 3, 2, dtype=torch.float64)
    for function in (head.loss, head.log_prob):
        given = all_BTPK.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda k, f=function: f(k, y), given, fast_mode=True)


@pytest.mark.parametrize("count", [1, 4, 0, -3])
def test_counts_that_cannot_be_are_refused(count):
    with pytest.raises(ConfigError, match="odd and at least 3"):
        Quantiles(4, 1, Quantiles.Config(count=count))
