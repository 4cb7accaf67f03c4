"""What is hidden, how often, and that nothing else is asked for."""

import numpy as np
import pytest

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives.masked_token import MaskedToken
from seqloom.testing.objectives import check_objective


def example(index: int, length: int) -> Example:
    rng = np.random.default_rng(index)
    return Example(index=index, tokens=rng.integers(6, 15, length), opens=False, closes=False)


def test_shares_are_those_of_the_options() -> None:
    first = example(0, 20_000)
    hidden = MaskedToken().corrupt(first, np.random.default_rng(1))
    asked = hidden.labels["weight"] == 1
    assert asked.sum() == 3000
    assert (hidden.labels["answer"] == first.tokens).all()
    assert (hidden.tokens[~asked] == first.tokens[~asked]).all()
    masks = hidden.tokens[asked] == SPECIALS.mask
    same = hidden.tokens[asked] == first.tokens[asked]
    assert masks.mean() == pytest.approx(0.8, abs=0.02)
    assert same.mean() == pytest.approx(0.1 + 0.1 / 9, abs=0.02)  # a swapped symbol may be the same one of nine


def test_every_epoch_hides_others_and_the_same_key_the_same() -> None:
    first = example(0, 50)
    one, again, other = (MaskedToken().corrupt(first, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.tokens == again.tokens).all()
    assert (one.labels["weight"] != other.labels["weight"]).any()
    assert (first.tokens == example(0, 50).tokens).all()


def test_a_short_sequence_is_asked_for_one_symbol_and_an_empty_one_for_none() -> None:
    rng = np.random.default_rng(0)
    assert MaskedToken().corrupt(example(0, 2), rng).labels["weight"].sum() == 1
    assert len(MaskedToken().corrupt(example(0, 0), rng).tokens) == 0


def test_targets_are_the_symbols_and_inputs_are_not() -> None:
    objective = MaskedToken(MaskedToken.Config(share=1.0, masked=1.0, swapped=0.0))
    first = example(0, 4)
    batch = objective.batch([objective.corrupt(first, np.random.default_rng(0)), example(1, 3)])
    assert batch.tokens[0].tolist() == [SPECIALS.mask] * 4
    assert batch.targets[0].tolist() == first.tokens.tolist()
    assert batch.weights.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]


def test_the_contract_holds() -> None:
    model = CausalLM.Config(backbone=Backbone.Config(width=8, layers=1, mixers=pattern("gru")))
    built, objective = model.build(Sizes(vocabulary=15)).double(), MaskedToken()
    examples = [objective.corrupt(example(i, n), np.random.default_rng(i)) for i, n in enumerate((3, 5, 0, 7))]
    check_objective(objective, examples, built.run)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.5}, {"masked": 0.9, "swapped": 0.2}])
def test_shares_that_are_none_are_refused(options) -> None:
    with pytest.raises(ConfigError, match="share"):
        MaskedToken.Config(**options)
