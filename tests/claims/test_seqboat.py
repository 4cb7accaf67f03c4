"""The claim's own counts, and one arm of a few steps."""

import pytest

from seqloom.claims import seqboat as claim
from seqloom.claims._base import Arm


def test_identities_hold() -> None:
    assert max(claim.exact(3).values()) < 1e-10


def test_an_arm_is_trained_and_its_share_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.SeqBoat, "steps", 2)
    monkeypatch.setattr(claim, "LOOKUP", claim.Induction.Config(length=32, train=128, valid=8, test=16))
    monkeypatch.setattr(claim, "PAIRS", claim.MQAR.Config(vocab=64, length=32, pairs=4, train=128, valid=8, test=16))
    arms = claim.SeqBoat().arms()
    assert 0 < arms["sparse"].measure(0)["share"] < 1
    assert 0 < arms["pairs"].measure(0)["share"] < 1
    assert arms["same_window"].measure(0)["share"] == 1.0


def test_findings_read_what_arms_give() -> None:
    metrics = {"steps": 0.0, "rows": 0.0, "none": 0.0, "every": 0.0, "accuracy": 0.5, "share": 0.3}
    found = list(claim.SeqBoat().findings({name: Arm(name, metrics) for name in claim.SeqBoat().arms()}))
    assert len(found) == 8
    assert [finding.text for finding in found if not finding.holds] == [
        "accuracy ahead of attention everywhere with the same window",
        "share among pairs, over that",
    ]
