"""What is exact is exact, and would show if it were not."""

import pytest
import torch

from seqloom.claims import bio_xlstm_mixers as claim
from seqloom.claims._base import Arm


def test_the_forms_agree() -> None:
    found = claim.forms(4)
    assert max(value for name, value in found.items() if "single" not in name) < 1e-9
    assert max(value for name, value in found.items() if "single" in name) < 1e-4


def test_a_wrong_step_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    right = claim._matrix_memory.step

    def wrong(qkv, gates, memory):
        return right(qkv, (gates[0] + 1e-6, gates[1]), memory)

    monkeypatch.setattr(claim._matrix_memory, "step", wrong)
    assert claim.forms(4)["double"] > 1e-8


def test_strands_agree_around_any_weights_and_not_without() -> None:
    found = claim.strands(4)
    assert found["read"] < 1e-12
    assert found["unread"] > 1e-2


def test_parity_arms_differ_in_the_mixer_alone() -> None:
    arms = claim.BioXLSTMMixers().arms()
    documents = [arms[name].to_json() for name in ("slstm", "mlstm", "mamba", "attention")]
    for document in documents:
        del document["model"]["backbone"]["mixers"]
    assert all(document == documents[0] for document in documents)


def test_the_parallel_form_is_a_weighted_mean_of_one_position() -> None:
    """One position alone: weight e^i (q k), divided by at least 1."""
    q, k, v = (torch.full((1, 1, 1, 1), value).double() for value in (2.0, 3.0, 5.0))
    f, i = torch.full((1, 1, 1), -0.1).double(), torch.full((1, 1, 1), -4.0).double()
    assert float(claim._parallel(q, k, v, f, i)) == pytest.approx(6 * 2.718281828**-4 * 5)
    assert float(claim._parallel(q, k, v, f, i + 8)) == pytest.approx(5)


def test_findings_read_what_arms_give() -> None:
    exact = dict.fromkeys(("double", "double_pushed", "single", "single_pushed", "both", "read"), 0.0)
    metrics = {**exact, "unread": 1.0, "accuracy": 1.0}
    found = list(claim.BioXLSTMMixers().findings({name: Arm(name, metrics) for name in claim.BioXLSTMMixers().arms()}))
    assert len(found) == 11
    assert {finding.text.rsplit(" ", 1)[1] for finding in found if not finding.holds} == {"mlstm", "mamba", "attention"}
