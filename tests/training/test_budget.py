"""Budgets as they are written on the command line."""

import pytest

from seqloom.core.errors import ConfigError
from seqloom.training.budget import Budget, parse


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60s", Budget(seconds=60)),
        ("1.5m", Budget(seconds=90)),
        ("1h", Budget(seconds=3600)),
        ("1000h", Budget(seconds=3_600_000)),
        ("61.25s", Budget(seconds=61.25)),
        ("2000steps", Budget(steps=2000)),
        ("1 step", Budget(steps=1)),
    ],
)
def test_forms(text: str, budget: Budget) -> None:
    assert parse(text) == budget
    assert parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "60", "s", "-1s", "0s", "0steps", "1.5steps", "1e3s", "infs"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_both_or_neither_is_no_budget() -> None:
    with pytest.raises(ConfigError):
        Budget()
    with pytest.raises(ConfigError):
        Budget(steps=1, seconds=1)
