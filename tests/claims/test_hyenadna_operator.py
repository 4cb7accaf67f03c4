"""What is exact is exact, stages read as many bytes, and findings read what arms give."""

import pytest

from seqloom.claims import hyenadna_operator as claim
from seqloom.claims._base import Arm
from seqloom.mixers.conv.hyena import Hyena


def test_the_operator_is_its_matrices() -> None:
    found = claim.exact(3)
    assert found["toeplitz"] < 1e-12
    assert found["leak"] < 1e-5


def test_a_gate_in_the_wrong_place_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Hyena._whole
    monkeypatch.setattr(Hyena, "_whole", lambda self, gates, v: right(self, gates[::-1], v))
    assert claim.exact(3)["toeplitz"] > 1e-3


def test_stages_read_as_many_bytes_and_end_at_the_full_length(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    right = claim.Loop

    def watched(run, data):
        seen.append((run.batch.rows * run.batch.window, run.batch.window, run.budget.steps))
        return right(run, data)

    monkeypatch.setattr(claim, "Loop", watched)
    monkeypatch.setattr(claim, "LONG", 64)
    monkeypatch.setattr(claim.HyenaDNAOperator, "steps", 2)
    found = claim.HyenaDNAOperator().arms()["warm"].measure(0)
    assert seen == [(256, 16, 1), (256, 64, 1)]
    assert found["loss"] > 0


def test_findings_read_what_arms_give() -> None:
    metrics = {"toeplitz": 0, "leak": 0, "counted": 200, "slope": 1.0, "attention_slope": 1.9, "ratio": 100.0}
    metrics |= {"loss": 1.0, "seconds": 1.0, "parameters": 5.0}
    found = list(
        claim.HyenaDNAOperator().findings({name: Arm(name, metrics) for name in claim.HyenaDNAOperator().arms()})
    )
    assert len(found) == 11
    assert {finding.text for finding in found if not finding.holds} == {
        "processor time with warm-up over the time without"
    }
