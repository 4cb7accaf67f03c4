"""Every discovered objective obeys the contract."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqloom.core import discovery
from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.models.encoder import Encoder
from seqloom.objectives._base import Objective, Term
from seqloom.testing.objectives import check_objective, check_packing, check_split

BACKBONE = Backbone.Config(width=8, layers=1, mixers=pattern("gru"))
MODELS = {"classify": Encoder.Config(backbone=BACKBONE)}


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    lengths = (3, 5, 0, 7)
    return [Example(index=i, tokens=rng.integers(6, 15, n), target=i % 3) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("name", discovery.names("objectives"))
def test_contract(name: str) -> None:
    config = MODELS.get(name, CausalLM.Config(backbone=BACKBONE))
    model = config.build(Sizes(vocabulary=15, classes=3)).double()
    check_objective(discovery.get("objectives", name)(), examples(), model.run)


class Averaged(Objective):
    """A broken objective: its sum is an average."""

    def batch(self, examples, *, rows=None):
        return discovery.get("objectives", "next_token")().batch(examples, rows=rows)

    def loss(self, outputs, batch):
        terms = discovery.get("objectives", "next_token")().loss(outputs, batch)
        return {name: Term(t.sum / t.count, t.count, t.weight) for name, t in terms.items()}


def test_the_contract_catches_means_of_means() -> None:
    model = CausalLM.Config(backbone=BACKBONE).build(Sizes(vocabulary=15)).double()
    with pytest.raises(AssertionError, match="batch split"):
        check_split(Averaged(), examples(), model.run)


def test_the_contract_catches_a_model_that_leaks_across_packed_examples() -> None:
    model = CausalLM.Config(backbone=BACKBONE).build(Sizes(vocabulary=15)).double()

    def leaks(batch):
        return Outputs({"logits": model(batch.tokens_BT)[0].logits})

    with pytest.raises(AssertionError, match="packing"):
        check_packing(discovery.get("objectives", "next_token")(), examples(), leaks)
    assert torch.is_tensor(leaks(discovery.get("objectives", "next_token")().batch(examples())).logits)


@pytest.mark.parametrize("name", ["next_token", "classify"])
@pytest.mark.parametrize("extra", ["values", "context"])
def test_what_an_objective_does_not_read_is_not_left_out_without_a_word(name: str, extra: str) -> None:
    first = examples()[0]
    given = {"values": np.zeros((3, 1), np.float32), "context": first}[extra]
    with pytest.raises(ConfigError, match=f"{name} reads symbols alone"):
        discovery.get("objectives", name)().batch([replace(first, **{extra: given})])
