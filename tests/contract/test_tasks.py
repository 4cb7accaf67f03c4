"""Every discovered synthetic task obeys the contract, and the contract catches tasks that do not."""

import numpy as np
import pytest

from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data import synthetic
from seqloom.data.synthetic._base import Drawn, Task
from seqloom.testing import tasks as contract
from seqloom.testing.tasks import check_task

QUICK = {"byte_text": {"length": 128}, "listops": {"shortest": 20, "longest": 60}, "retrieval": {"length": 64}}
QUICK["pathfinder"] = {"side": 24, "contour": 3, "distractors": 0}
MOST = {"listops": 400, "pathfinder": 300}


@pytest.mark.parametrize("name", synthetic.names())
def test_contract(name: str) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    check_task(synthetic.get(name).Config(**QUICK.get(name, {})), MOST.get(name, 1000))


class Echo(Task):
    """Twelve symbols, a mark, and the first of them again."""

    def __init__(self, config: Task.Config | None = None) -> None:
        super().__init__(config)
        self.symbols, self.told = 16, 1 / 16

    @property
    def sizes(self) -> Sizes:
        return Sizes(vocabulary=SPECIALS.count + self.symbols)

    @property
    def floor(self) -> float:
        return self.told

    def draw(self, rng, place):
        symbols = SPECIALS.count + rng.integers(self.symbols, size=12)
        tokens = np.array([*symbols, SPECIALS.sep, symbols[0]])
        return Drawn(tokens, np.arange(14) == 13)

    def oracle(self, example):
        return example.tokens[:1]


def drawn(task: Task) -> dict:
    return {part: contract.some(task, part, 1000) for part in contract.PARTS}


def test_an_honest_task_passes() -> None:
    task = Echo()
    for check in (contract.check_form, contract.check_oracle, contract.check_floor):
        check(task, drawn(task))
    contract.check_leakage(drawn(task))


def test_the_contract_catches_an_oracle_that_reads_the_answer() -> None:
    class Reads(Echo):
        def oracle(self, example):
            return example.tokens[-1:]

    with pytest.raises(AssertionError, match="the oracle says"):
        contract.check_oracle(Reads(), drawn(Reads()))


@pytest.mark.parametrize("told", [1 / 8, 1 / 64])
def test_the_contract_catches_a_floor_that_is_not_what_a_guess_reaches(told: float) -> None:
    task = Echo()
    task.told = told
    with pytest.raises(AssertionError, match="a constant reaches"):
        contract.check_floor(task, drawn(task))


def test_the_contract_catches_a_test_part_that_was_trained_on() -> None:
    task = Echo()
    task.symbols = 2
    with pytest.raises(AssertionError, match="are in the train part"):
        contract.check_leakage(drawn(task))
    task.crowded = True
    contract.check_leakage(drawn(task))


def test_the_contract_catches_an_example_that_depends_on_the_ones_before() -> None:
    class Counts(Echo):
        made = 0

        def draw(self, rng, place):
            Counts.made += 1
            drawn = super().draw(rng, place)
            drawn.tokens[1] = SPECIALS.count + Counts.made % 16
            return drawn

    with pytest.raises(AssertionError, match="depends on the range"):
        contract.check_determinism(Counts())


def test_the_contract_catches_ids_beyond_the_vocabulary() -> None:
    class Wide(Echo):
        @property
        def sizes(self):
            return Sizes(vocabulary=8)

    with pytest.raises(AssertionError, match="id out of range"):
        contract.check_form(Wide(), drawn(Wide()))
