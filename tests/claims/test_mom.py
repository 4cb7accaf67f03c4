"""The claim's own counts, and one arm of a few steps."""

import pytest

from seqloom.claims import mom as claim
from seqloom.claims._base import Arm


def test_identities_hold() -> None:
    assert max(claim.exact(3).values()) < 1e-12
    assert claim.undisturbed(3) == {"change": 0.0}


def test_one_memory_is_as_large_as_those_it_stands_for() -> None:
    several, work, whole = (config.build(claim.WIDTH) for config in (claim.MoM.several(), *map(claim.MoM.one, (3, 5))))
    state = several.initial_state(1).s_BMHKV
    assert state[:, :3].numel() == work.initial_state(1).s_BHKV.numel()
    assert state.numel() == whole.initial_state(1).s_BHKV.numel()


def test_an_arm_is_trained_and_its_load_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.MoM, "steps", 2)
    few = claim.MQAR.Config
    monkeypatch.setattr(claim.MQAR, "Config", lambda **given: few(**given, train=64, valid=8, test=16))
    found = claim.MoM().arms()["mom"].measure(0)
    assert 0.25 <= found["load"] <= 1.0
    assert found["state_bytes"] > claim.MoM().arms()["at_work"].measure(0)["state_bytes"]


def test_findings_read_what_arms_give() -> None:
    metrics = {
        "steps": 0.0,
        "loops": 0.0,
        "single": 0.0,
        "change": 0.0,
        "accuracy": 0.5,
        "parameters": 1.0,
        "load": 0.3,
    }
    found = list(claim.MoM().findings({name: Arm(name, metrics) for name in claim.MoM().arms()}))
    assert len(found) == 9
    assert [finding.text for finding in found if not finding.holds] == [
        "recall ahead of one memory as large as those at work"
    ]
