"""Classification against torch's own cross-entropy."""

import numpy as np
import pytest
import torch

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.objectives.classify import Classify


def test_the_loss_is_cross_entropy_over_labelled_examples() -> None:
    examples = [Example(index=i, tokens=np.array([7] * i), target=target) for i, target in enumerate([2, None, 0])]
    batch = Classify().batch(examples)
    assert batch.tokens.tolist() == [[1, 2, 0, 0], [1, 7, 2, 0], [1, 7, 7, 2]]
    logits = torch.randn(3, 4)
    terms = Classify().loss(Outputs({"logits": logits}), batch)
    own = torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([2, 0]))
    torch.testing.assert_close(terms["nll"].sum / terms["nll"].count, own)
    assert terms["nll"].count == 2


def test_packed_targets_follow_rows_and_columns() -> None:
    examples = [Example(index=i, tokens=np.array([7]), target=i) for i in range(3)]
    batch = Classify().batch(examples, rows=[1, 0, 1])
    assert batch.targets.tolist() == [1, 0, 2]
    assert batch.index_B.tolist() == [1, 0, 2]


def test_a_target_that_is_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="example 5"):
        Classify().batch([Example(index=5, tokens=np.array([7]), target=0.5)])


def test_smoothing_is_torchs() -> None:
    batch = Classify().batch([Example(index=i, tokens=np.array([7]), target=i) for i in range(3)])
    logits = torch.randn(3, 4)
    term = Classify(Classify.Config(smoothing=0.3)).loss(Outputs({"logits": logits}), batch)["nll"]
    own = torch.nn.functional.cross_entropy(logits, torch.arange(3), label_smoothing=0.3, reduction="sum")
    torch.testing.assert_close(term.sum, own)
