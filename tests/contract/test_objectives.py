"""Every discovered objective obeys the contract."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqloom.core import discovery
from seqloom.core.batch import Batch, Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.models.causal_regression import CausalRegression
from seqloom.models.causal_values import CausalValues
from seqloom.models.encoder import Encoder
from seqloom.objectives._base import Objective, Term
from seqloom.testing.objectives import check_objective, check_packing, check_split

BACKBONE = Backbone.Config(width=8, layers=1, mixers=pattern("gru"))
MODELS = {"classify": Encoder.Config(backbone=BACKBONE), "next_value": CausalValues.Config(backbone=BACKBONE)}
SYMBOLS = {"vocabulary": 15, "classes": 3, "targets": 1}
SIZES = {"next_value": Sizes(channels=2, values=1)}
MODELS["regress"] = CausalRegression.Config(backbone=BACKBONE)
NONE = np.zeros(0, np.int32)


def examples(*, values: bool = False, symbols: bool = True) -> list[Example]:
    rng = np.random.default_rng(0)
    lengths = (3, 5, 0, 7)
    made = [Example(index=i, tokens=rng.integers(6, 15, n), target=i % 3) for i, n in enumerate(lengths)]
    if values:
        made = [replace(e, values=rng.normal(size=(len(e.tokens), 2)).astype(np.float32)) for e in made]
    return made if symbols else [replace(e, tokens=NONE, closes=False) for e in made]


@pytest.mark.parametrize("name", discovery.names("objectives"))
def test_contract(name: str) -> None:
    config = MODELS.get(name, CausalLM.Config(backbone=BACKBONE))
    model = config.build(SIZES.get(name, Sizes(**SYMBOLS))).double()
    given = examples(values=name in SIZES, symbols=name not in SIZES)
    if name == "regress":
        given = [replace(e, labels={"y": np.where(e.tokens == 7, np.nan, e.tokens / 9)}) for e in given]
    check_objective(discovery.get("objectives", name)(), given, lambda batch: model.run(_double(batch)))


@pytest.mark.parametrize(("name", "symbols"), [("next_token", True), ("classify", True), ("classify", False)])
def test_contract_with_values_beside_the_symbols_or_alone(name: str, symbols: bool) -> None:
    config = MODELS.get(name, CausalLM.Config(backbone=BACKBONE))
    sizes = Sizes(**SYMBOLS, channels=2) if symbols else Sizes(classes=3, channels=2)
    model = config.build(sizes).double()
    given = examples(values=True, symbols=symbols)
    check_objective(discovery.get("objectives", name)(), given, lambda batch: model.run(_double(batch)))


def _double(batch: Batch) -> Batch:
    return batch if batch.values_BTC is None else replace(batch, values_BTC=batch.values_BTC.double())


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


@pytest.mark.parametrize("name", ["next_token", "classify", "next_value", "regress"])
def test_a_second_sequence_is_not_left_out_without_a_word(name: str) -> None:
    first = examples()[0]
    with pytest.raises(ConfigError, match=f"{name} reads one sequence"):
        discovery.get("objectives", name)().batch([replace(first, context=first)])


def test_inputs_of_different_widths_are_refused() -> None:
    first, second = examples(values=True)[:2]
    with pytest.raises(ConfigError, match="example 1 has other inputs than example 0"):
        discovery.get("objectives", "next_token")().batch([first, replace(second, values=None)])
