"""The claim's own counts, its other ways of reading, and a few steps of its trainings."""

import pytest
import torch
from torch.testing import assert_close

from seqloom.claims import hip as claim
from seqloom.claims._base import Arm
from seqloom.kernels.block_attention import block_attention
from seqloom.mixers.attention.attention import Attention


def test_counts() -> None:
    found = claim.exact(3)
    assert found["gap"] < 1e-5
    assert 0 < found["scores"] < 1


def test_an_oracle_that_may_see_everything_is_full_attention() -> None:
    q, k, v = (torch.randn(2, 4, 33, 8) for _ in range(3))
    first = torch.zeros(2, dtype=torch.long)
    want = block_attention(q, k, v, None, 0)[0]
    assert_close(claim.Oracle(33, 1, 0)(q, k, v, first), want)
    assert_close(claim.Nearest(33, 0)(q, k, v, first), want)
    assert (claim.Oracle(2, 1, 0)(q, k, v, first) - want).abs().max() > 1e-3


def test_reading_another_way_ends_with_the_block() -> None:
    layer, x_BTD = Attention(8).eval(), torch.randn(1, 64, 8)
    before = layer(x_BTD)[0]
    with claim.reading(layer, claim.Nearest(2, 1)):
        assert (layer(x_BTD)[0] - before).abs().max() > 1e-4
    assert torch.equal(layer(x_BTD)[0], before)


def test_a_training_goes_on_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "STAGES", ((16, 4, 2), (64, 2, 1)))
    monkeypatch.setattr(claim, "WINDOW", 2)
    monkeypatch.setattr(claim, "SINKS", 1)
    few = claim.Induction.Config
    monkeypatch.setattr(claim.Induction, "Config", lambda **given: few(**given | {"train": 40, "valid": 8, "test": 8}))
    found = claim.HiP().arms()["lookup"].measure(0)
    assert found["keys"] == 8
    assert {"full", "hip", "window", "oracle", "scores"} < set(found)


def test_findings_read_what_arms_give() -> None:
    metrics = {"gap": 0.0, "scores": 0.01, "full": 1.0, "hip": 1.0, "window": 0.5}
    found = list(claim.HiP().findings({name: Arm(name, metrics) for name in claim.HiP().arms()}))
    assert len(found) == 7
    assert {finding.text for finding in found if not finding.holds} == {
        "lookup: accuracy by window and sinks",
        "novel: loss by search over that by window and sinks",
    }
