"""What does not fit is refused by every backend, so that the reference says what is wrong; nothing is read beyond."""

import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.kernels.delta_rule import delta_rule
from seqloom.kernels.route import routed
from seqloom.kernels.sparse_attention import sparse_attention
from seqloom.kernels.tree_topk import tree_topk


@pytest.mark.parametrize(
    ("at", "shape"), [(1, (2, 5, 2, 4)), (4, (2, 5, 1)), (5, (1, 2, 8, 4)), (6, (2, 4)), (7, (3,))]
)
def test_delta_rule(at, shape):
    sizes = [(2, 5, 2, 8), (2, 5, 2, 8), (2, 5, 2, 4), (2, 5, 2), (2, 5, 2), (2, 2, 8, 4), (2, 5), (2,)]
    given = [torch.zeros(*(shape if n == at else size)) for n, size in enumerate(sizes)]
    given[6:] = [value.long() for value in given[6:]]
    with pytest.raises(ConfigError, match="should be"):
        delta_rule(*given)


@pytest.mark.parametrize(
    ("channels", "offset", "options"),
    [(3, [0, 0], {}), (4, [-5, 0], {}), (4, [0], {}), (4, [0, 0], {"beam": 0}), (4, [0, 0], {"keys": 0})],
)
def test_tree_topk(channels, offset, options):
    q, k = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 9, channels)
    with pytest.raises(ConfigError, match="tree_topk"):
        tree_topk(q, k, torch.tensor(offset), **{"beam": 2, **options})


@pytest.mark.parametrize(
    ("blocks", "number", "options"),
    [(3, 0, {"window": 2}), (5, 0, {}), (3, 7, {}), (3, 0, {"queries": 0}), (3, 0, {"window": -3})],
)
def test_sparse_attention(blocks, number, options):
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(ConfigError, match="sparse_attention"):
        sparse_attention(q, q, q, torch.full((1, 2, blocks, 1), number), **options)


def test_lists_without_entries_see_nothing():
    q = torch.randn(1, 2, 3, 4)
    o, l = sparse_attention(q, q, q, torch.zeros(1, 2, 3, 0, dtype=torch.long))
    assert not o.any()
    assert (l == -torch.inf).all()


def test_routed():
    with pytest.raises(ConfigError, match="no item 50000"):
        routed(torch.randn(2, 3), torch.tensor([0, 50_000]), torch.tensor([[0], [-1]]))
