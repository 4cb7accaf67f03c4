import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.decoding.processors.min_p import MinP

logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))


def test_what_has_the_share_of_the_best_is_kept():
    got = MinP(MinP.Config(share=0.2))(torch.tensor([[0.6, 0.3, 0.07, 0.03]]).log(), None, None)
    assert (~got.isneginf()).tolist() == [[True, True, False, False]]


def test_the_best_stays_at_the_highest_share():
    assert (~MinP(MinP.Config(share=1.0))(logits, None, None).isneginf()).sum(1).tolist() == [1] * 4


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(ConfigError, match="min_p"):
        MinP(MinP.Config(share=share))


@pytest.mark.parity
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_equals_transformers(share):
    warper = pytest.importorskip("transformers").MinPLogitsWarper
    assert torch.equal(MinP(MinP.Config(share=share))(logits, None, None), warper(share)(None, logits))
