"""What is exact is exact, and would show if it were not."""

import pytest

from seqloom.claims import hydra as claim
from seqloom.claims._base import Arm


def test_the_structure_holds() -> None:
    found = claim.structure(4)
    assert found["excess"] == 0
    assert max(found[name] for name in ("diagonal", "formula", "added")) < 1e-12


def test_a_missing_shift_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    right = claim.quasiseparable.both_ways
    monkeypatch.setattr(
        claim.quasiseparable, "both_ways", lambda q, k, v, a, shift=True: right(q, k, v, a, shift=False)
    )
    found = claim.structure(4)
    assert found["diagonal"] > 0.1
    assert found["formula"] > 0.1


def test_encoders_differ_in_mixer_width_and_mlp_alone() -> None:
    arms = claim.Hydra().arms()
    documents = [arms[name].to_json() for name in ("hydra", "added", "forward", "attention")]
    for document in documents:
        for name in ("mixers", "width", "mlp"):
            del document["model"]["backbone"][name]
    assert all(document == documents[0] for document in documents)
    assert set(claim.CLASSES) == {name.removesuffix("_place") for name in arms if name.endswith("_place")}


def test_findings_read_what_arms_give() -> None:
    metrics = {"loss": 1.0, "used_parameters": 10.0, "diagonal": 0, "excess": 0, "formula": 0, "added": 0}
    found = list(claim.Hydra().findings({name: Arm(name, metrics) for name in claim.Hydra().arms()}))
    assert len(found) == 8
    assert {finding.text for finding in found if not finding.holds} == {
        "loss of Hydra over that of Mamba-2 forwards",
        "structures that are better when made of the tokens, of four",
    }
