import pytest
import torch
from torch.testing import assert_close

from seqloom.layers.gaussian import Gaussian

stats = pytest.importorskip("scipy.stats")

Y = torch.linspace(-9, 9, 41, dtype=torch.float64)


@pytest.fixture
def parameters():
    head = Gaussian(4, 3).double()
    torch.nn.init.normal_(head.map.weight)
    return head, head(torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64))


def test_density_and_quantiles_are_scipys(parameters):
    head, all_BTPK = parameters
    mean, scale = all_BTPK[1, 2, 0].detach()[0], all_BTPK[1, 2, 0].detach()[1].exp()
    one = all_BTPK[1, 2, 0].detach().expand(len(Y), -1)
    peer = stats.norm(mean, scale)
    assert_close(head.log_prob(one, Y), torch.from_numpy(peer.logpdf(Y)))
    p = torch.linspace(0.01, 0.99, len(Y), dtype=torch.float64)
    assert_close(head.quantile(one, p), torch.from_numpy(peer.ppf(p)))
    assert_close(head.loss(one, Y), -head.log_prob(one, Y))


def test_it_begins_as_a_standard_normal_around_what_it_is_told():
    around = torch.randn(1, 2, 3)
    fresh = Gaussian(4, 3)(torch.randn(1, 2, 4), around)
    assert_close(fresh[..., 0], around)
    assert not fresh[..., 1].any()


def test_scales_stay_finite_whatever_comes():
    head = Gaussian(1, 1)
    with torch.no_grad():
        head.map.weight.fill_(1e6)
    extreme = head(torch.tensor([[[1.0], [-1.0]]]))
    assert bool(head.log_prob(extreme, torch.zeros(1, 2, 1)).isfinite().all())


def test_gradients(parameters):
    head, all_BTPK = parameters
    y = torch.randn(all_BTPK.shape[:-1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda k: head.loss(k, y), all_BTPK.detach().requires_grad_(), fast_mode=True)
