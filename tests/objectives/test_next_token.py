"""Next-token training against torch's own cross-entropy, and by hand."""

import numpy as np
import pytest
import torch

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.core.specials import SPECIALS
from seqloom.objectives.next_token import NextToken


def example(*tokens: int, index: int = 0, opens: bool = True, closes: bool = True) -> Example:
    return Example(index=index, tokens=np.array(tokens, dtype=np.int32), opens=opens, closes=closes)


def test_inputs_and_targets_are_shifted_once() -> None:
    batch = NextToken().batch([example(7, 8), example(9)])
    assert batch.tokens.tolist() == [[1, 7, 8], [1, 9, 0]]
    assert batch.targets.tolist() == [[7, 8, 2], [9, 2, 0]]
    assert batch.weights.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.layout.lengths_B.tolist() == [3, 2]


def test_windows_of_a_stream_predict_each_symbol_once() -> None:
    batch = NextToken().batch([example(7, 8, closes=False), example(8, 9, opens=False)])
    assert batch.tokens.tolist() == [[1, 7], [8, 9]]
    assert batch.targets.tolist() == [[7, 8], [9, SPECIALS.eos]]


def test_packed_rows_mark_where_each_example_starts() -> None:
    batch = NextToken().batch([example(7), example(8, 9), example(6)], rows=[0, 0, 1])
    assert batch.tokens.tolist() == [[1, 7, 1, 8, 9], [1, 6, 0, 0, 0]]
    assert batch.layout.starts_BT.tolist() == [[True, False, True, False, False], [True, False, False, False, False]]


def test_the_loss_is_the_sum_of_cross_entropies() -> None:
    batch = NextToken().batch([example(7, 8), example(9)])
    logits = torch.randn(2, 3, 10)
    terms = NextToken().loss(Outputs({"logits": logits}), batch)
    own = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=SPECIALS.pad)
    torch.testing.assert_close(terms["nll"].sum / terms["nll"].count, own)


def test_smoothing_is_torchs() -> None:
    batch = NextToken().batch([example(7, 8)])
    logits = torch.randn(1, 3, 10)
    terms = NextToken(NextToken.Config(smoothing=0.1)).loss(Outputs({"logits": logits}), batch)
    own = torch.nn.functional.cross_entropy(logits[0], batch.targets[0], label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(terms["nll"].sum, own)


def test_an_infinite_loss_at_a_masked_position_does_not_spread() -> None:
    batch = NextToken().batch([example(7, 8), example(9)])
    logits = torch.zeros(2, 3, 10)
    logits[1, 2, SPECIALS.pad] = -torch.inf  # the padded target
    assert torch.isfinite(NextToken().loss(Outputs({"logits": logits}), batch)["nll"].sum)


def test_labels_called_weight_weigh_the_symbols() -> None:
    weighted = Example(index=0, tokens=np.array([7, 8]), labels={"weight": np.array([0.0, 2.0])})
    assert NextToken().batch([weighted]).weights.tolist() == [[0, 2, 1]]


def test_an_example_without_symbols_and_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="example 3"):
        NextToken().batch([example(index=3, opens=False, closes=False)])
