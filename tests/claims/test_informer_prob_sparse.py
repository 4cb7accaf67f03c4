"""The claim's own counts, and one arm of a few steps."""

import pytest

from seqloom.claims import informer_prob_sparse as claim
from seqloom.claims._base import Arm
from seqloom.data.synthetic.digits import Digits

pytest.importorskip("sklearn")


def test_counts() -> None:
    assert max(claim.exact(3).values()) < 1e-6
    assert claim.distilled(3)["ratio"] < 2
    cost = claim.cost(3)
    assert cost["share"] == pytest.approx(4096 * 2 * 45 / 4096**2)  # 5 ceil(ln 4096) = 45 keys drawn, and answered
    assert cost["memory"] > 0


def test_an_arm_is_trained_and_its_queries_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.InformerProbSparse, "steps", 2)
    few = Digits.Config
    monkeypatch.setattr(
        "seqloom.claims._training.Digits.Config", lambda repeat: few(repeat=repeat, train=40, valid=10, test=20)
    )
    arms = claim.InformerProbSparse().arms()
    assert set(arms["full"].measure(0)) == {"accuracy", "over_random"}
    assert set(arms["prob_sparse"].measure(0)) == {"accuracy"}


def test_findings_read_what_arms_give() -> None:
    metrics = {"full": 0.0, "causal": 0.0, "share": 0.02, "scores": 1.1, "memory": 1.1, "fewer": 4.3, "ratio": 1.6}
    metrics |= {"accuracy": 0.5, "over_random": 0.9}
    found = list(claim.InformerProbSparse().findings({n: Arm(n, metrics) for n in claim.InformerProbSparse().arms()}))
    assert len(found) == 9
    assert [finding.text for finding in found if not finding.holds] == [
        "error of the chosen queries over that of random ones, trained layers"
    ]
