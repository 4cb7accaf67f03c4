"""What is exact is exact, and would show if it were not."""

import pytest

from seqloom.claims import m2 as claim
from seqloom.claims._base import Arm


def test_products_and_transforms_are_exact() -> None:
    found = claim.exact(3)
    assert max(found["dense"], found["fourier"]) < 1e-10
    assert found["macs"] == 32


def test_factors_in_the_wrong_order_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    right = claim.monarch
    wrong = type("Wrong", (), {"__call__": lambda self, x, l, r, *a: right(x, r, l, *a), "floor": right.floor})()
    monkeypatch.setattr(claim, "monarch", wrong)
    assert claim.exact(3)["dense"] > 0.1


def test_nothing_looks_ahead() -> None:
    found = claim.future(3)
    assert found["above"] == 0
    assert found["leak"] < 1e-12
    assert found["reach"] > 0


def test_the_exponent_of_a_power_is_that_power() -> None:
    assert claim._slope([1e-6 * length**1.3 for length in claim.LENGTHS]) == pytest.approx(1.3)


def test_findings_read_what_arms_give() -> None:
    metrics = {"dense": 0, "fourier": 0, "macs": 32, "above": 0, "leak": 0, "reach": 1, "loss": 1, "used_parameters": 5}
    metrics |= {"slope": 1.0, "attention_slope": 1.9, "ratio": 3.0}
    found = list(claim.M2().findings({name: Arm(name, metrics) for name in claim.M2().arms()}))
    assert len(found) == 11
    assert {finding.text for finding in found if not finding.holds} == {"parameters over attention's"}
