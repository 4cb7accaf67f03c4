"""The claim's own counts, and arms that differ in what they should alone."""

import math

import pytest
import torch

from seqloom.claims import mamba as claim
from seqloom.claims._base import Arm, Count
from seqloom.kernels.selective_scan import selective_scan


def test_state_bytes_are_those_of_the_states() -> None:
    found = claim.state(0)
    assert found["growth"] == 1.0
    ours, theirs = claim.selective.Mamba(64), claim.Attention(64)
    held = sum(value.nbytes for value in ours.initial_state(1).tensors().values())
    assert found["cache"] == pytest.approx(theirs.state_bytes(claim.CONTEXT) / held)


def test_a_scan_that_kept_every_state_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim.saved(0)["ratio"] > 8
    monkeypatch.setattr(claim, "selective_scan", selective_scan.reference)
    monkeypatch.setattr(selective_scan.reference, "reference", selective_scan.reference, raising=False)
    assert claim.saved(0)["ratio"] == pytest.approx(1.0)


def test_copying_arms_differ_in_the_choice_alone() -> None:
    arms = claim.Mamba().arms()
    documents = [arms[f"copy_{name}"].to_json() for name in claim.CHOICES]
    for document in documents:
        (mixer,) = document["model"]["backbone"]["mixers"]
        del mixer["selective"], mixer["gate"]
    assert all(document == documents[0] for document in documents)


def test_a_lookup_is_judged_at_every_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.Mamba, "looking", 2)
    monkeypatch.setattr(claim, "LENGTHS", (64, 80))
    arm = claim.Mamba().arms()["lookup_mamba"]
    assert isinstance(arm, Count)
    assert set(arm.measure(0)) == {"at_64", "at_80"}


def test_findings_read_what_arms_give() -> None:
    arms = {name: {"accuracy": 1.0, "at_64": 1.0, "at_2048": 1.0, "growth": 1.0} for name in claim.Mamba().arms()}
    arms["state"]["cache"], arms["step"]["throughput"], arms["saved"]["ratio"] = 200.0, 6.0, 9.0
    found = list(claim.Mamba().findings({name: Arm(name, metrics) for name, metrics in arms.items()}))
    failing = {finding.text for finding in found if not finding.holds}
    assert len(found) == 11
    assert failing == {
        "copying: ahead of no choice, with its gate",
        "copying: ahead of no choice, without a gate",
        "copying: accuracy of no choice with the gate",
        "lookup: attention with learned positions there",
    }
    assert all(math.isfinite(finding.value) for finding in found)


def test_a_step_writes_into_the_same_slot_again() -> None:
    model = claim.CausalLM(
        claim.Sizes(vocabulary=64), claim.CausalLM.Config(backbone=claim.Backbone.Config(width=8, layers=1))
    ).eval()
    with torch.no_grad():
        run = claim._stepping(model, 2, 5)
        torch.testing.assert_close(run(), run())
