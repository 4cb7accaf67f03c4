from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from seqloom.core.batch import Batch, Example
from seqloom.core.layout import Layout


def test_rows_are_counted_by_whatever_there_is() -> None:
    assert len(Batch(tokens_BT=torch.zeros(3, 2, dtype=torch.long))) == 3
    assert len(Batch(values_BTC=torch.zeros(4, 2, 1))) == 4
    assert len(Batch(index_B=torch.arange(5))) == 5
    assert len(Batch()) == 0


def test_tokens_that_are_absent_are_an_error() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        _ = Batch(values_BTC=torch.zeros(1, 1, 1)).tokens
    tokens_BT = torch.ones(1, 2, dtype=torch.long)
    assert Batch(tokens_BT=tokens_BT).tokens is tokens_BT


def test_to_moves_every_tensor_context_and_layout_included() -> None:
    every = {
        "lengths_B": torch.tensor([2]),
        "starts_BT": torch.zeros(1, 2, dtype=torch.bool),
        "positions_BT": torch.zeros(1, 2, dtype=torch.long),
        "parents_BT": torch.zeros(1, 2, dtype=torch.long),
        "parts_BT": torch.zeros(1, 2, dtype=torch.long),
    }
    batch = Batch(
        tokens_BT=torch.zeros(1, 2, dtype=torch.long),
        values_BTC=torch.zeros(1, 2, 3),
        targets=torch.zeros(1, 2, dtype=torch.long),
        weights=torch.ones(1, 2),
        layout=Layout(side="left", states_at=(1,), **every),
        context=Batch(tokens_BT=torch.zeros(1, 4, dtype=torch.long), layout=Layout(lengths_B=torch.tensor([4]))),
        index_B=torch.arange(1),
    )
    moved = batch.to("meta")
    for name in ("tokens_BT", "values_BTC", "targets", "weights", "index_B"):
        assert getattr(moved, name).is_meta, name
    for name in every:
        assert getattr(moved.layout, name).is_meta, name
    assert (moved.layout.side, moved.layout.states_at) == ("left", (1,))
    assert moved.context.tokens.is_meta
    assert moved.context.layout.lengths_B.is_meta
    assert not batch.tokens.is_meta


def test_select_takes_rows_everywhere() -> None:
    context = Batch(tokens_BT=torch.tensor([[4], [5]]))
    batch = Batch(
        tokens_BT=torch.tensor([[1, 2], [3, 0]]), layout=Layout(lengths_B=torch.tensor([2, 1])), context=context
    )
    picked = batch.select(torch.tensor([1, 1, 0]))
    assert picked.tokens.tolist() == [[3, 0], [3, 0], [1, 2]]
    assert picked.layout.lengths_B.tolist() == [1, 1, 2]
    assert picked.context.tokens.tolist() == [[5], [5], [4]]


def test_an_example_is_a_value_that_begins_and_ends_unless_it_is_a_window() -> None:
    example = Example(index=3, tokens=np.array([7, 8]))
    assert (example.opens, example.closes) == (True, True)
    assert example.labels is not Example(index=4, tokens=np.array([])).labels
    with pytest.raises(FrozenInstanceError):
        example.index = 4
