import torch

from seqloom.core import auxiliary


def test_nobody_collects():
    auxiliary.add("balance", torch.ones(()))
    assert not auxiliary.wanted()


def test_the_innermost_collector_gets_the_sum():
    with auxiliary.collecting() as outer:
        auxiliary.add("balance", torch.tensor(1.0))
        with auxiliary.collecting() as inner:
            assert auxiliary.wanted()
            auxiliary.add("balance", torch.tensor(2.0))
            auxiliary.add("balance", torch.tensor(3.0))
        auxiliary.add("other", torch.tensor(4.0))
    assert {name: float(value) for name, value in outer.items()} == {"balance": 1.0, "other": 4.0}
    assert {name: float(value) for name, value in inner.items()} == {"balance": 5.0}
    assert not auxiliary.wanted()


def test_an_inner_collector_that_holds_the_same_closes_itself():
    with auxiliary.collecting() as outer:
        with auxiliary.collecting():
            pass
        auxiliary.add("balance", torch.tensor(1.0))
    assert outer == {"balance": torch.tensor(1.0)}
