import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.layers._selection import attend, best


def test_best_is_topk_with_holes_for_what_is_missing():
    score = torch.tensor([[0.5, 2.0, -torch.inf, 2.0]])
    assert best(score, 2).tolist() == [[1, 3]]
    assert best(score, 6).tolist() == [[1, 3, 0, -1, -1, -1]]
    assert best(score, 3, torch.tensor([[True, False, True, False]])).tolist() == [[0, -1, -1]]
    assert best(score, 2, torch.zeros(1, 4, dtype=torch.bool)).tolist() == [[-1, -1]]
    assert best(score[:, :0], 2).tolist() == [[-1, -1]]
    with pytest.raises(ConfigError, match="negative"):
        best(score, -1)


def test_all_keys_are_full_attention_and_no_key_is_nothing():
    q, k, v = (torch.randn(2, 3, n, 4).double() for n in (5, 7, 7))
    score = q @ k.mT
    assert_close(attend(q, k, v, best(score, 7)), scaled_dot_product_attention(q, k, v))
    assert attend(q, k, v, torch.full((2, 3, 5, 2), -1)).abs().sum() == 0


def test_the_best_keys_are_softmax_over_them_alone():
    q, k, v = (torch.randn(2, 3, n, 4).double() for n in (5, 7, 7))
    score = q @ k.mT
    index = best(score, 3)
    seen = torch.zeros_like(score, dtype=torch.bool).scatter(3, index, True)
    assert_close(attend(q, k, v, index), scaled_dot_product_attention(q, k, v, attn_mask=seen))
