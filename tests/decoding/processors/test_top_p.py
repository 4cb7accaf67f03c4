import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.decoding.processors.top_p import TopP

logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("p", "kept"), [(0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.999, 4), (1.0, 4)])
def test_the_smallest_set_that_reaches_the_share_is_kept(p, kept):
    got = TopP(TopP.Config(p=p))(torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log(), None, None)
    assert int((~got.isneginf()).sum()) == kept


def test_of_ties_the_lowest_ids_are_kept():
    got = TopP(TopP.Config(p=0.4))(torch.zeros(2, 10), None, None)
    assert (~got.isneginf()).tolist() == [[True] * 4 + [False] * 6] * 2


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1])
def test_a_share_lies_between_0_and_1(p):
    with pytest.raises(ConfigError, match="top_p"):
        TopP(TopP.Config(p=p))


@pytest.mark.parity
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_equals_transformers(p):
    warper = pytest.importorskip("transformers").TopPLogitsWarper
    assert torch.equal(TopP(TopP.Config(p=p))(logits, None, None), warper(p)(None, logits))
