import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.decoding._hypotheses import Hypotheses, Prompt, prompts
from seqloom.decoding.processors.repetition import Repetition

logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))


def hypotheses():
    begun = Hypotheses.begin(Prompt.of(prompts([[7, 8, 8], [9], []])))
    return begun.append(torch.tensor([10, 11, 9]), torch.zeros(3), torch.zeros(3))


def test_seen_tokens_lose_whatever_the_sign_and_others_stay():
    got = Repetition(Repetition.Config(penalty=2.0))(logits, hypotheses(), None)
    for row, seen in enumerate(([1, 7, 8, 10], [1, 9, 11], [1, 9])):
        assert (got[row] != logits[row]).nonzero()[:, 0].tolist() == seen
        assert bool((got[row, seen] < logits[row, seen]).all())


def test_a_row_that_was_selected_keeps_what_it_saw():
    moved = Repetition()(logits[[2, 0]], hypotheses().select(torch.tensor([2, 0])), None)
    assert torch.equal(moved, Repetition()(logits, hypotheses(), None)[[2, 0]])


def test_only_positive_penalties():
    with pytest.raises(ConfigError, match="penalty"):
        Repetition(Repetition.Config(penalty=0.0))


@pytest.mark.parity
def test_equals_transformers():
    processor = pytest.importorskip("transformers").RepetitionPenaltyLogitsProcessor
    begun = Hypotheses.begin(Prompt.of(prompts([[7, 8, 8], [9, 7, 7], [12, 13, 14]])))
    got = Repetition(Repetition.Config(penalty=1.3))(logits, begun, None)
    torch.testing.assert_close(got, processor(1.3)(begun.prompt.tokens_PT, logits))
