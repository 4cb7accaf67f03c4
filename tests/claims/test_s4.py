"""The claim's counts against other ways of counting, and its findings; the whole of it is marked ``claim``."""

import pytest
import torch

from seqloom.claims import _s4_counts as counts
from seqloom.claims._base import Arm
from seqloom.claims._runner import run_claim
from seqloom.claims.s4 import S4
from seqloom.mixers.ssm import s4

pytest.importorskip("sklearn")


def test_the_dense_kernel_is_the_impulse_response_of_the_steps() -> None:
    torch.manual_seed(0)
    mixer = s4.S4(2, s4.S4.Config(state=8, memory="legt", activation="none", output="none")).double()
    with torch.no_grad():
        mixer.skip.zero_()
        impulse_BTD = torch.zeros(1, 30, 2).double()
        impulse_BTD[:, 0] = 1
        y_BTD = mixer(impulse_BTD, mixer.initial_state(1))[0]
        torch.testing.assert_close(counts.dense(mixer, 30), y_BTD[0].T, rtol=1e-8, atol=1e-10)


def test_peak_counts_what_lives_at_once() -> None:
    def run() -> torch.Tensor:
        first = torch.zeros(1000, dtype=torch.float64)
        second = first + 1
        del first
        return (second + 1) + 1  # the third and the fourth beside the second

    assert counts.peak(run) == pytest.approx(3 * 8000, rel=0.01)  # and numbers of eight bytes


def test_multiply_adds_of_the_kernel_are_those_of_its_sums_and_its_transform() -> None:
    layer = s4.S4(2, s4.S4.Config(state=8, activation="none", output="none"))
    with torch.no_grad():
        got = counts._macs(lambda: layer.kernel(64)[0])
    assert got == 2 * (4 * 4 * 4 * 33) + 2 * 1.25 * 64 * 6


def test_a_small_identity_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "LENGTHS", (5, 8))
    found = counts.identity(0)
    assert len(found) == 3 * 2 * 2
    assert max(value for name, value in found.items() if name.endswith("double")) < 1e-8
    assert max(value for name, value in found.items() if name.endswith("single")) < 1e-4


def test_arms_differ_in_the_mixer_and_have_one_size() -> None:
    arms = S4().arms()
    runs = {name: arms[name] for name in ("s4", "attention", "lstm")}
    documents = {name: run.to_json() for name, run in runs.items()}
    for document in documents.values():
        backbone = document["model"]["backbone"]
        del backbone["mixers"], backbone["width"]
    assert documents["s4"] == documents["attention"] == documents["lstm"]
    sizes = [sum(p.numel() for p in run.model.build(run.data.build().sizes).parameters()) for run in runs.values()]
    assert max(sizes) / min(sizes) < 1.1


def test_findings_can_fail() -> None:
    good = {name: Arm(name, {"accuracy": 0.9, "used_parameters": 100.0}) for name in ("s4", "attention", "lstm")}
    exact = {f"{m}_{w}_{p}": 0.0 for m in counts.MEMORIES for w in ("start", "learnt") for p in ("double", "single")}
    figures = {"error": 0.0, "time_ratio": 11, "terms_ratio": 64, "macs_ratio": 18, "memory_growth": 1, "slope": 1}
    got = {**good, "identity": Arm("identity", exact), "cost": Arm("cost", figures)}
    got["generation"] = Arm("generation", {"over_anew": 21})
    failing = [finding.text for finding in S4().findings(got) if not finding.holds]
    assert failing == ["accuracy of S4 above that of attention", "accuracy of S4 above that of lstm"]


@pytest.mark.slow
def test_it_runs_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LENGTHS": (5,), "CHANNELS": 1, "STATE": 4, "TAPS": 64, "CONTEXT": 16}.items():
        monkeypatch.setattr(counts, name, value)
    monkeypatch.setattr(S4, "steps", 2)
    monkeypatch.setattr(S4, "repeat", 1)
    result = run_claim(S4(), seeds=(0,))
    assert result.findings[0].holds
    assert set(result.arms["s4"]) >= {"accuracy", "parameters", "steps"}


@pytest.mark.claim
def test_the_claim_holds() -> None:
    assert run_claim("s4").exit_code == 0
