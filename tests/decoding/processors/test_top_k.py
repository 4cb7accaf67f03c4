import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.decoding.processors.top_k import TopK

logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))


def test_of_ties_the_lowest_ids_are_kept():
    got = TopK(TopK.Config(k=3))(torch.tensor([[1.0, 2, 1, 0, 1, 2], [1, 1, 1, 1, 1, 1]]), None, None)
    assert (~got.isneginf()).tolist() == [[True, True, False, False, False, True], [True, True, True] + [False] * 3]


def test_more_than_there_are_changes_nothing():
    assert torch.equal(TopK(TopK.Config(k=99))(logits, None, None), logits)


def test_at_least_one_is_kept():
    with pytest.raises(ConfigError, match="top_k"):
        TopK(TopK.Config(k=0))


@pytest.mark.parity
@pytest.mark.parametrize("k", [1, 7, 50])
def test_equals_transformers(k):
    warper = pytest.importorskip("transformers").TopKLogitsWarper
    assert torch.equal(TopK(TopK.Config(k=k))(logits, None, None), warper(k)(None, logits))
