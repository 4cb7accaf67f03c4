"""Delayed copying: its columns, and the cross-entropy of whoever remembers nothing."""

import math

import numpy as np
import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic.delayed_copy import BLANK, FIRST, DelayedCopy
from seqloom.objectives.tag import Tag


def test_the_columns_are_those_of_the_published_task():
    task = DelayedCopy(DelayedCopy.Config(keep=3, delay=5))
    (example,) = task.examples("train", 0, 0, 1)
    symbols = example.tokens[:3]
    assert len(example.tokens) == 5 + 2 * 3
    assert (symbols >= FIRST).all()
    assert example.tokens[3:].tolist() == [*[BLANK] * 4, SPECIALS.sep, *[BLANK] * 3]
    assert example.labels["answer"].tolist() == [*[BLANK] * 8, *symbols]
    assert example.labels["weight"].tolist() == [0] * 8 + [1] * 3


@pytest.mark.parametrize("blanks", [True, False])
def test_the_floor_is_the_loss_of_the_best_prediction_without_memory(blanks):
    """Blanks where they must be and evenly spread symbols where not, under the objective's own loss."""
    task = DelayedCopy(DelayedCopy.Config(keep=3, delay=5, blanks=blanks))
    batch = Tag().batch(task.examples("test", 0, 0, 400))
    known_V, unknown_V = (torch.full((task.sizes.vocabulary,), -1e4) for _ in range(2))
    known_V[BLANK], unknown_V[FIRST:] = 0, 0
    logits_BTV = torch.stack([known_V] * 8 + [unknown_V] * 3).expand(400, -1, -1)
    nll = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten(), reduction="none")
    mean = (nll * batch.weights.flatten()).sum() / batch.weights.sum()
    assert task.floor_nll == pytest.approx(3 * math.log(8) / (5 + 6) if blanks else math.log(8))
    torch.testing.assert_close(mean, torch.tensor(task.floor_nll))
    guess_T = np.where(np.arange(11) < 8, BLANK, FIRST)
    kept = batch.weights.numpy() == 1
    hits = (batch.targets.numpy() == guess_T)[kept].mean()
    assert hits == pytest.approx(task.floor, abs=4 * math.sqrt(0.1 / kept.sum()))


def test_the_test_part_may_wait_longer():
    task = DelayedCopy(DelayedCopy.Config(delay=10, test_delay=1000))
    assert [len(task.examples(part, 0, 0, 1)[0].tokens) for part in ("valid", "test")] == [30, 1020]
    example = task.examples("test", 0, 0, 1)[0]
    assert task.oracle(example).tolist() == example.tokens[:10].tolist()


@pytest.mark.parametrize("options", [{"vocab": 1}, {"keep": 0}, {"delay": 0}, {"test_delay": -1}])
def test_what_has_nothing_to_repeat_is_refused(options):
    with pytest.raises(ConfigError, match="delayed copying needs"):
        DelayedCopy.Config(**options)


def test_too_few_words_for_three_parts_are_refused():
    task = DelayedCopy(DelayedCopy.Config(vocab=2, keep=1))
    with pytest.raises(ConfigError, match="too small to be divided"):
        [task.examples(part, 0, 0, 1) for part in ("train", "valid", "test")]
