import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels.block_attention import block_attention
from seqloom.layers.tree_attention import TreeAttention

FIRST = torch.zeros(1, dtype=torch.long)


def draw(T, S=None, K=8):
    return tuple(torch.randn(1, 2, n, K) for n in (T, S or T, S or T))


@pytest.mark.parametrize("length", [0, 1, 31, 200])
def test_within_the_budget_it_is_full_attention(length):
    q, k, v = draw(length)
    assert_close(TreeAttention()(q, k, v, FIRST), block_attention(q, k, v, None, 0)[0], rtol=1e-5, atol=1e-5)


def test_a_key_that_stands_out_is_found_wherever_it_lies():
    """A ridge of keys that one query asks for; a window and sinks of the same budget do not see it."""
    torch.manual_seed(0)
    config = TreeAttention.Config(budget=64, window=16, sinks=4, queries=8, stride=1)
    q, k, v = draw(1024)
    for place in (100, 333, 700):
        ridge = k.clone()
        near = (torch.arange(1024) - place).abs()
        ridge += (6 * torch.exp(-near / 40.0))[:, None] * q[:, :, -1:]
        got = TreeAttention(config)(q, ridge, v, FIRST)[:, :, -1]
        full = block_attention(q, ridge, v, None, 0)[0][:, :, -1]
        blind = block_attention(q, ridge, v, None, 0, 84)[0][:, :, -1]
        assert (got - full).norm() < 0.1 * full.norm()
        assert (blind - full).norm() > 0.5 * full.norm()


def test_scores_are_those_of_the_search_and_of_the_softmax():
    few, many = (TreeAttention(TreeAttention.Config(queries=1, stride=1, keys=1, budget=n)) for n in (16, 1 << 14))
    assert many.scores(2, 100) == 2 * sum(range(1, 101))
    assert few.scores(1, 4096) < 4096 * 4096 / 8


@pytest.mark.parametrize("options", [{"budget": 5}, {"window": 0}, {"stride": 0}, {"sinks": -1}], ids=str)
def test_bad_options_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options)) if "budget" in options else "positive"):
        TreeAttention.Config(**options)
