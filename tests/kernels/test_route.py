"""Routing against numpy's stable sort, and the laws of moving: back and forth, order, gradients, nothing lost."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.route import Routes, route, routed

BACKENDS = ["reference", "numba_cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sort_is_stable(backend):
    group_N = torch.randint(-1, 5, (997,))
    with use_backend(backend):
        place_N, order_N, count_G = route(group_N, 5)
    plain = group_N.numpy()
    want = np.argsort(np.where(plain < 0, 5, plain), kind="stable")
    assert order_N.tolist() == want.tolist()
    assert count_G.tolist() == [int((plain == g).sum()) for g in range(5)]
    for g in range(5):
        assert place_N[group_N == g].tolist() == list(range(int(count_G[g])))
    assert set(place_N[group_N < 0].tolist()) == {-1}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [[0, 3], [-2, 0]])
def test_a_group_that_does_not_exist_is_an_error(backend, bad):
    with use_backend(backend), pytest.raises(ConfigError, match=r"groups lie in -1\.\.2"):
        route(torch.tensor(bad), 3)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match="do not fit"):
        routed(torch.randn(3, 2), torch.zeros(4, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long))


def routes(B=2, T=9, K=2, groups=4):
    group_BTK = torch.stack([torch.randperm(groups + 1)[:K] - 1 for _ in range(B * T)]).view(B, T, K)
    return group_BTK, Routes.of(group_BTK, groups)


def test_rows_hold_each_groups_positions_in_the_order_of_time():
    group_BTK, made = routes()
    x_BTD = torch.randn(2, 9, 3)
    rows_RLD = made.compact(x_BTD)
    for g in range(4):
        for b in range(2):
            want = x_BTD[b][(group_BTK[b] == g).any(1)]
            row = g * 2 + b
            assert int(made.lengths_R[row]) == len(want)
            assert torch.equal(rows_RLD[row, : len(want)], want)
            assert rows_RLD[row, len(want) :].abs().sum() == 0


def test_there_and_back_is_the_identity_where_a_choice_was_made():
    group_BTK, made = routes()
    x_BTD = torch.randn(2, 9, 3, requires_grad=True)
    line_PD = made.line(x_BTD)
    assert torch.equal(made.unrows(made.rows(line_PD)), line_PD)
    back_BTKD = made.scatter(line_PD)
    chosen_BTK1 = (group_BTK >= 0)[..., None]
    assert torch.equal(back_BTKD, torch.where(chosen_BTK1, x_BTD[:, :, None], 0))
    weight = torch.randn_like(back_BTKD)
    (got,) = torch.autograd.grad((back_BTKD * weight).sum(), x_BTD)
    assert_close(got, (weight * chosen_BTK1).sum(2))


def test_nobody_chooses_anything():
    made = Routes.of(torch.full((2, 5, 1), -1), 3)
    x_BTD = torch.randn(2, 5, 4, requires_grad=True)
    y_BTKD = made.scatter(made.unrows(made.compact(x_BTD)))
    assert y_BTKD.shape == (2, 5, 1, 4)
    assert y_BTKD.abs().sum() == 0
    y_BTKD.sum().backward()
    assert x_BTD.grad.abs().sum() == 0


def test_all_go_to_one_group():
    made = Routes.of(torch.full((2, 5, 1), 2), 4)
    assert made.lengths_GB.tolist() == [[0, 0], [0, 0], [5, 5], [0, 0]]
    x_BTD = torch.randn(2, 5, 4)
    assert torch.equal(made.compact(x_BTD)[4:6], x_BTD)


def test_a_capacity_keeps_the_latest():
    group_BTK = torch.tensor([[[0], [1], [0], [0], [-1], [1]]])
    made = Routes.of(group_BTK, 2)
    kept = made.latest(torch.tensor([2]), group_BTK)
    assert kept.lengths_GB.tolist() == [[2], [2]]
    assert kept.item_P.tolist() == [2, 3, 1, 5]
