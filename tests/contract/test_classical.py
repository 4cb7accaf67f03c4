"""Every discovered classical next-symbol model obeys the contract, and the contract catches broken ones."""

import numpy as np
import pytest
import torch

from seqloom.models import classical
from seqloom.models.classical import unigram
from seqloom.testing import classical as contract
from seqloom.testing.classical import check_classical

NEXT = [name for name in classical.names() if "next" in classical.get(name).tasks]


@pytest.mark.parametrize("name", NEXT)
def test_contract(name):
    check_classical(classical.get(name).Config())


class Forgetful(unigram.Unigram):
    """A model whose memory counts the tokens, so that a memory that is kept wrongly shows."""

    reach = None

    def _start(self, rows):
        return np.zeros((rows, 1))

    def _read(self, memory_BM, tokens_BT, lengths_B):
        step_T = np.arange(1, tokens_BT.shape[1] + 1)
        return memory_BM[:, None] + np.minimum(step_T, lengths_B[:, None])[..., None]

    def _log_probs(self, memory_BM):
        tilted_BV = self.log_V + 0.01 * memory_BM * (np.arange(11) == 7)
        return tilted_BV - np.log(np.exp(tilted_BV).sum(1, keepdims=True))

    _score = unigram.ClassicalModel._score


def test_a_model_with_a_memory_of_everything_passes():
    model = Forgetful(contract.SIZES)
    model.fit(contract.language())
    for check in (contract.check_distributions, contract.check_steps, contract.check_rollback, contract.check_padding):
        check(model)


def test_the_contract_catches_a_reach_that_is_too_short():
    model = Forgetful(contract.SIZES)
    model.reach = 1
    model.fit(contract.language())
    with pytest.raises(AssertionError, match="not as from scratch"):
        contract.check_rollback(model)


def test_the_contract_catches_memory_that_reads_padding():
    class Reads(Forgetful):
        def _read(self, memory_BM, tokens_BT, lengths_B):
            return super()._read(memory_BM, tokens_BT, np.full_like(lengths_B, tokens_BT.shape[1]))

    model = Reads(contract.SIZES)
    model.fit(contract.language())
    with pytest.raises(AssertionError, match="padding"):
        contract.check_padding(model)


def test_the_contract_catches_probabilities_that_do_not_sum_to_one():
    model = unigram.Unigram(contract.SIZES)
    model.fit(contract.language())
    model.log_V = model.log_V + 1e-9
    with pytest.raises(AssertionError, match="sum to"):
        contract.check_distributions(model)


def test_distributions_are_made_only_when_somebody_looks():
    model = unigram.Unigram(contract.SIZES)
    model.fit(contract.language())
    model._log_probs = None
    outputs, state = model.observe(torch.tensor([[6, 7]]), model.start(contract.Batch(tokens_BT=torch.tensor([[6]]))))
    assert state.length_B.tolist() == [2]
    with pytest.raises(TypeError):
        outputs.logits.sum()
