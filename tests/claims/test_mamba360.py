"""Members are of one size, and the worst and best of them are what is judged."""

import pytest

from seqloom.claims import mamba360 as claim
from seqloom.claims._base import Arm

pytest.importorskip("sklearn")


def test_every_member_has_about_as_many_parameters() -> None:
    sizes = {name: claim._size(claim.fitted(mixer)) for name, mixer in claim.MEMBERS.items()}
    assert max(sizes.values()) / min(sizes.values()) < 1.25
    assert all(abs(size / claim.TARGET - 1) < 0.15 for size in sizes.values()), sizes


def test_a_member_is_trained_and_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.Mamba360, "copying", 2)
    arm = claim.Mamba360().arms()["lstm_copy"]
    found = arm.measure(0)
    assert 0 <= found["accuracy"] <= 1
    assert found["parameters"] == claim._size(claim.fitted(claim.MEMBERS["lstm"]))
    assert found["state_bytes"] == 2 * (2 * 40 * 4 + 8)


def judged(**accuracy: float) -> set[str]:
    metrics = {"accuracy": 0.5, "parameters": 1.0}
    given = {name: Arm(name, metrics | {"accuracy": accuracy.get(name, 0.5)}) for name in claim.Mamba360().arms()}
    return {finding.text for finding in claim.Mamba360().findings(given) if not finding.holds}


def test_one_filter_behind_the_lstm_and_one_that_copies_fail() -> None:
    fine = {"lstm_digits": 0.2, "mamba_copy": 0.95}
    assert judged(**fine) == set()
    assert judged(**fine, dss_digits=0.1) == {"digits: the least of the time-invariant members ahead of the LSTM"}
    assert judged(**fine, lru_copy=0.95) == {"copying: the best of the time-invariant members"}
    assert judged(**fine, hyena_copy=0.95) == set()
