import torch

from seqloom.decoding.processors.forbid import Forbid


def test_forbidden_tokens_get_minus_infinity_and_the_given_tensor_stays():
    logits = torch.arange(12.0).view(2, 6)
    got = Forbid(Forbid.Config(tokens=(0, 4, 99)))(logits, None, None)
    assert got.isneginf().tolist() == [[True, False, False, False, True, False]] * 2
    assert torch.equal(logits, torch.arange(12.0).view(2, 6))


def test_one_instance_serves_vocabularies_of_different_size():
    forbid = Forbid(Forbid.Config(tokens=(2, 5)))
    assert forbid(torch.zeros(1, 3), None, None).isneginf().sum() == 1
    assert forbid(torch.zeros(1, 6), None, None).isneginf().sum() == 2
