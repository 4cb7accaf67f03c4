"""Answers at every position against torch's own cross-entropy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives.tag import Tag
from seqloom.testing.objectives import check_objective


def example(index: int, length: int, *, opens: bool = False) -> Example:
    rng = np.random.default_rng(index)
    labels = {
        "answer": rng.integers(6, 15, length),
        "weight": np.arange(length, dtype=np.float32) % 2,
    }
    return Example(index=index, tokens=rng.integers(6, 15, length), labels=labels, opens=opens, closes=False)


def test_answers_stand_where_they_are_asked_and_are_no_input() -> None:
    first, second = example(0, 3), example(1, 2, opens=True)
    batch = Tag().batch([first, second])
    assert batch.tokens.tolist() == [first.tokens.tolist(), [1, *second.tokens.tolist()]]
    assert batch.targets.tolist() == [first.labels["answer"].tolist(), [0, *second.labels["answer"].tolist()]]
    assert batch.weights.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert batch.index_B.tolist() == [0, 1]


def test_without_weights_every_answer_counts_and_without_answers_nothing() -> None:
    labels = example(0, 3).labels
    all_asked = replace(example(0, 3), labels={"answer": labels["answer"]})
    batch = Tag().batch([all_asked, replace(all_asked, labels={})])
    assert batch.weights.tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_torchs_over_weighted_answers(smoothing: float) -> None:
    batch = Tag().batch([example(0, 5), example(1, 3)])
    logits = torch.randn(2, 5, 15)
    term = Tag(Tag.Config(smoothing=smoothing)).loss(Outputs({"logits": logits}), batch)["nll"]
    kept = batch.weights == 1
    own = torch.nn.functional.cross_entropy(
        logits[kept], batch.targets[kept], label_smoothing=smoothing, reduction="sum"
    )
    torch.testing.assert_close(term.sum, own)
    assert term.count == kept.sum() == 3


def test_the_contract_holds_with_answers() -> None:
    model = CausalLM.Config(backbone=Backbone.Config(width=8, layers=1, mixers=pattern("gru")))
    built = model.build(Sizes(vocabulary=15)).double()
    check_objective(Tag(), [example(0, 3), example(1, 5, opens=True), example(2, 0), example(3, 7)], built.run)


def test_a_batch_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="targets and weights"):
        Tag().loss(Outputs({}), Batch())
    with pytest.raises(ConfigError, match="tag reads one sequence"):
        Tag().batch([replace(example(0, 3), context=example(1, 3))])
