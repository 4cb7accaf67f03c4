import pytest
import torch
from torch.testing import assert_close

from seqloom.core import auxiliary
from seqloom.core.errors import ConfigError
from seqloom.layers.router import Router, router_balance


def test_weights_are_the_softmax_of_the_chosen_alone():
    torch.manual_seed(0)
    router, x_BTD = Router(6, Router.Config(outlets=5, top=3)), torch.randn(2, 7, 6)
    chosen, weight = router(x_BTD)
    logits = x_BTD @ router.map.weight.T
    top = logits.topk(3)
    assert torch.equal(chosen, top.indices)
    assert_close(weight, top.values.softmax(-1))


def test_ties_go_to_the_first():
    router = Router(3, Router.Config(outlets=4, top=2))
    torch.nn.init.zeros_(router.map.weight)
    chosen, weight = router(torch.randn(1, 5, 3))
    assert chosen.unique(dim=1).tolist() == [[[0, 1]]]
    assert_close(weight, torch.full((1, 5, 2), 0.5))


def test_pads_choose_nothing_and_do_not_count():
    torch.manual_seed(0)
    router, x_BTD = Router(6), torch.randn(2, 7, 6)
    valid = torch.arange(7) < torch.tensor([[7], [3]])
    chosen, weight = router(x_BTD, valid)
    assert set(chosen[1, 3:].flatten().tolist()) == {-1}
    assert weight[1, 3:].abs().sum() == 0

    def loss(rows, valid):
        with auxiliary.collecting() as added:
            router.train()(rows, valid)
        return added["balance"]

    loud = torch.where(valid[..., None], x_BTD, 1e3)
    assert torch.equal(loss(x_BTD, valid), loss(loud, valid))


@pytest.mark.parametrize(("outlets", "top"), [(4, 1), (4, 2), (6, 3)])
def test_the_balance_is_least_where_all_are_used_alike(outlets, top):
    even = torch.full((1, outlets, outlets), 1 / outlets)
    turn = (torch.arange(outlets)[:, None] + torch.arange(top)) % outlets
    assert_close(router_balance(even, turn[None], None), torch.tensor(float(top)))
    one_sided = torch.zeros(1, outlets, outlets)
    one_sided[..., :top] = 1 / top
    first = torch.arange(top).expand(1, outlets, top)
    assert_close(router_balance(one_sided, first, None), torch.tensor(float(outlets)))


@pytest.mark.parametrize(
    ("options", "said"), [({"top": 5}, "top = 5"), ({"top": 0}, "top = 0"), ({"balance": -1.0}, "balance")]
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        Router(4, Router.Config(**options))
