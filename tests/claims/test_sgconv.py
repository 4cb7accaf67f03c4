"""The claim's own counts: numbers of a kernel, slopes of known kernels."""

import pytest
import torch

from seqloom.claims import sgconv as claim
from seqloom.claims._base import Arm
from seqloom.data.synthetic.digits import Digits

pytest.importorskip("sklearn")


def test_numbers_grow_by_the_logarithm() -> None:
    found = claim.numbers(0)
    assert found["exact"] == 1.0
    assert found["doublings"] == pytest.approx(10 / 5)


def test_the_slope_is_the_power_of_a_kernel() -> None:
    class Layer:
        class mixer:  # noqa: N801
            @staticmethod
            def kernel(length: int) -> tuple[torch.Tensor]:
                return (torch.arange(length, dtype=torch.float64).clamp_min(1)[None].repeat(3, 1) ** -1.5,)

    class Model:
        class backbone:  # noqa: N801
            layers = (Layer,)

    assert claim.slope(Model) == pytest.approx(-1.5)  # type: ignore[arg-type]


def test_an_arm_is_trained_and_its_kernel_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.SGConv, "steps", 2)
    few = Digits.Config
    monkeypatch.setattr(
        "seqloom.claims._training.Digits.Config", lambda repeat: few(repeat=repeat, train=40, valid=10, test=20)
    )
    found = claim.SGConv().arms()["sgconv"].measure(0)
    assert found["slope_before"] < 0
    assert set(found) == {"accuracy", "parameters", "slope", "slope_before"}


def test_findings_read_what_arms_give() -> None:
    metrics = {"accuracy": 0.5, "parameters": 1.0, "slope": -1.0, "slope_before": -1.0, "exact": 1.0, "doublings": 2.0}
    metrics |= {"counted": 200.0, "timed": 5.0, "over_s4d": 0.9}
    found = list(claim.SGConv().findings({name: Arm(name, metrics) for name in claim.SGConv().arms()}))
    assert len(found) == 11
    assert {finding.text for finding in found if not finding.holds} == {
        "accuracy ahead of no decay",
        "parameters of the free kernel's network over ours",
    }
