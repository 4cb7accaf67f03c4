"""The claim's own code: what it counts, what it halves, and that a broken identity would show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqloom.app.defaults import parameters_of
from seqloom.claims import lssl as claim
from seqloom.claims._base import Arm, Count
from seqloom.claims._runner import run_claim
from seqloom.data.synthetic.digits import Digits
from seqloom.mixers.ssm._quasiseparable import Discrete
from seqloom.training.run import Run

pytest.importorskip("sklearn")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> type[claim.LSSL]:
    monkeypatch.setattr(claim.LSSL, "steps", {"rate": 2, "long": 2})
    monkeypatch.setattr(claim.LSSL, "repeat", {"blocks": 1, "held": 1, "long": 1})
    few = Digits.Config

    def small(**options: int) -> Digits.Config:
        return few(**options, train=40, valid=10, test=30)

    monkeypatch.setattr(claim.Digits, "Config", small)
    return claim.LSSL


def test_the_three_views_agree() -> None:
    assert max(claim.identity(3).values()) < 1e-12


def test_a_step_of_another_rule_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the recurrence is changed: the views must then differ."""
    right = Discrete.advance
    monkeypatch.setattr(Discrete, "advance", lambda self, x: right(self._replace(alpha=self.alpha + 0.1), x))
    monkeypatch.setattr(Discrete, "dense", lambda self: right(self, torch.eye(24).double().expand(4, -1, -1)))
    assert claim.identity(3)["alpha_0.5"] > 1e-6


def test_a_wrong_structure_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim.structured(3)["worst"] < 1e-12
    right = Discrete._right
    monkeypatch.setattr(Discrete, "_right", lambda self, x: right(self, x) * (1 + 1e-6))
    assert claim.structured(3)["worst"] > 1e-8


def test_every_other_step_is_left_out() -> None:
    whole = Digits.Config(test=5, repeat=2).build().examples("test")
    half = claim.every_other(whole)
    for own, other in zip(whole, half, strict=True):
        np.testing.assert_array_equal(own.values[::2], other.values)
        assert own.target == other.target
    assert [len(example.values) for example in half] == [128] * 5
    for own, other in zip(whole, claim.held(whole), strict=True):
        np.testing.assert_array_equal(own.values, other.values[1::4])
        assert len(other.values) == 1024


def test_both_arms_have_as_many_parameters() -> None:
    arms = claim.LSSL().arms()
    sizes = Digits.Config(repeat=4).build().sizes
    runs = [arm for name in ("lssl_fixed", "lstm") if isinstance(arm := arms[name], Run)]
    counts = [parameters_of(run.model, sizes) for run in runs]
    assert abs(counts[0] / counts[1] - 1) <= 0.05
    alike = [replace(run, model=runs[0].model) for run in runs]
    assert alike[0] == alike[1]  # the mixer and its width are the only difference


def test_a_rate_is_told_to_every_layer(tiny: type[claim.LSSL], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    right = claim.layers.LSSL.resample
    monkeypatch.setattr(claim.layers.LSSL, "resample", lambda self, rate: asked.append(rate) or right(self, rate))
    arm = tiny().arms()["blocks"]
    assert isinstance(arm, Count)
    assert set(arm.measure(0)) == {"own", "told", "untold"}
    assert asked == [2.0, 2.0]


def test_every_arm_runs(tiny: type[claim.LSSL], tmp_path: Path) -> None:
    result = run_claim(tiny(), seeds=(0,), cache=tmp_path)
    assert [finding.holds for finding in result.findings[:4]] == [True] * 4
    assert len(result.findings) == 10
    assert run_claim(tiny(), seeds=(0,), cache=tmp_path).arms == result.arms


def test_findings_can_fail() -> None:
    good = {
        "identity": {"alpha_0": 0, "alpha_0.5": 0, "alpha_1": 0},
        "structure": {"worst": 0},
        "blocks": {"own": 0.8, "told": 0.78, "untold": 0.3},
        "held": {"own": 0.8, "told": 0.78, "untold": 0.3},
        "lssl_fixed": {"accuracy": 0.7, "used_parameters": 100},
        "lstm": {"accuracy": 0.5, "used_parameters": 101},
    }

    def judged(**changed: dict[str, float]) -> list[bool]:
        got = {name: Arm(name, {**values, **changed.get(name, {})}) for name, values in good.items()}
        return [finding.holds for finding in claim.LSSL().findings(got)]

    assert all(judged())
    assert judged(blocks={"told": 0.7}).count(False) == 1
    assert judged(held={"untold": 0.7}).count(False) == 1
    assert judged(lstm={"accuracy": 0.6}).count(False) == 1
    assert judged(lstm={"used_parameters": 200}).count(False) == 1
    assert judged(identity={"alpha_1": 1e-6}).count(False) == 1
