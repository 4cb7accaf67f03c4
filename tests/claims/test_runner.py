"""The claim runner, proven on a small claim of its own."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.claims._runner import run_claim
from seqloom.core.errors import ConfigError, DataError
from seqloom.core.lock import alone
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent.gru import GRU


class ConstantState(Claim):
    """A recurrent state does not grow with time, a key-value cache does."""

    source = Source(title="Attention is all you need", authors="Vaswani et al.", year=2017, arxiv="1706.03762")
    statement = "The state of attention grows with the sequence, that of a recurrence does not."
    paper = "table 1"
    here = "one layer of width 8, counted"
    calls = 0

    def arms(self) -> dict[str, Count]:
        return {"recurrence": self.arm(GRU.Config()), "attention": self.arm(Attention.Config(heads=2))}

    def arm(self, config: GRU.Config | Attention.Config) -> Count:
        def measure(seed: int) -> Mapping[str, float]:
            type(self).calls += 1
            mixer = config.build(8)
            return {"growth": mixer.state_bytes(64) / mixer.state_bytes(32), "seed": seed}

        return Count(measure, config=config.to_json())

    def findings(self, got: Results) -> Iterator[Finding]:
        yield Finding("a recurrent state is constant", got["recurrence"].growth, "==", 1.0)
        yield Finding("a cache doubles", got["attention"].growth, ">=", 1.9)
        yield Finding("seeds stay below the limit", got["attention"].seed, "<=", self.limit)

    limit = 2.0


def test_a_claim_that_holds(tmp_path: Path) -> None:
    result = run_claim(ConstantState(), seeds=(0, 1, 2), out=tmp_path)
    assert result.exit_code == 0
    document = json.loads((tmp_path / "test_runner.json").read_text())
    assert document["seeds"] == [0, 1, 2]
    assert document["arms"]["recurrence"]["growth"] == [1.0, 1.0, 1.0]
    assert [finding["holds"] for finding in document["findings"]] == [True, True, True]
    assert document["schema"] == 1


def test_one_bad_seed_fails_a_finding_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConstantState, "limit", 1.0)
    result = run_claim(ConstantState(), seeds=(0, 2, 1))
    assert result.exit_code == 1
    assert (result.findings[2].worst_seed, result.findings[2].value, result.findings[2].holds) == (2, 2.0, False)


def test_finished_arms_are_not_run_again(tmp_path: Path) -> None:
    ConstantState.calls = 0
    first = run_claim(ConstantState(), seeds=(0,), cache=tmp_path)
    assert ConstantState.calls == 2
    second = run_claim(ConstantState(), seeds=(0, 1), cache=tmp_path)
    assert ConstantState.calls == 4
    assert second.arms["attention"]["growth"][0] == first.arms["attention"]["growth"][0]


class Processes(Claim):
    """Which process measured each arm."""

    source, statement, paper, here = ConstantState.source, "", "", ""

    def arms(self) -> dict[str, Count]:
        return {
            "counted": Count(lambda seed: {"process": os.getpid(), "at": time.time(), "seed": seed}),
            "timed": Count(lambda seed: {"process": os.getpid(), "at": time.time(), "seed": seed}, timed=True),
        }

    def findings(self, got: Results) -> Iterator[Finding]:
        yield Finding("what is timed comes last", got["timed"].at, ">", got["counted"].at)


def test_arms_run_in_processes_of_their_own_and_what_is_timed_runs_alone() -> None:
    result = run_claim(Processes(), seeds=(4, 5, 6), jobs=2)
    assert result.exit_code == 0
    assert os.getpid() not in result.arms["counted"]["process"]
    assert set(result.arms["timed"]["process"]) == {os.getpid()}
    assert result.arms["counted"]["seed"] == result.arms["timed"]["seed"] == [4, 5, 6]
    assert min(result.arms["timed"]["at"]) > max(result.arms["counted"]["at"])
    with pytest.raises(ConfigError, match="0"):
        run_claim(Processes(), jobs=0)


def test_nan_never_holds() -> None:
    assert not any(Finding("x", float("nan"), op, 0.0).holds for op in ("==", ">=", "<=", ">", "<"))


def test_a_figure_that_is_not_finite_fails_its_finding_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undefined = Count(lambda seed: {"growth": float("nan"), "seed": float("inf")})
    monkeypatch.setattr(ConstantState, "arm", lambda self, config: undefined)
    result = run_claim(ConstantState(), seeds=(0,), out=tmp_path, cache=tmp_path / "cache")
    assert [finding.holds for finding in result.findings] == [False, False, False]
    document = json.loads((tmp_path / "test_runner.json").read_text())
    assert document["arms"]["attention"] == {"growth": [None], "seed": [None]}
    assert not (tmp_path / "cache").exists()


def test_what_is_no_comparison_is_refused() -> None:
    with pytest.raises(ConfigError):
        Finding("x", 1.0, "~", 1.0)


def test_no_seeds_and_no_findings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="seed"):
        run_claim(ConstantState(), seeds=())
    monkeypatch.setattr(ConstantState, "findings", lambda self, got: iter(()))
    with pytest.raises(ConfigError, match="findings"):
        run_claim(ConstantState(), seeds=(0,))


def test_an_unknown_metric_names_those_there_are() -> None:
    from seqloom.claims._base import Arm

    with pytest.raises(ConfigError, match="growth"):
        _ = Arm("a", {"growth": 1.0}).accuracy


@pytest.mark.parametrize("text", ["", "[1]", '{"growth": 1.0', '{"growth": "much"}', "[" * 9000])
def test_a_damaged_arm_in_the_cache_is_run_again(tmp_path: Path, text: str) -> None:
    first = run_claim(ConstantState(), seeds=(0,), cache=tmp_path)
    kept = next(tmp_path.glob("test_runner/attention-0-*.json"))
    kept.write_text(text)
    ConstantState.calls = 0
    second = run_claim(ConstantState(), seeds=(0,), cache=tmp_path)
    assert (ConstantState.calls, second.arms) == (1, first.arms)


def test_a_second_run_of_the_same_arm_is_refused(tmp_path: Path) -> None:
    run_claim(ConstantState(), seeds=(0,), cache=tmp_path)
    kept = next(tmp_path.glob("test_runner/recurrence-0-*.json"))
    with alone(kept.parent, name=f".{kept.name}.lock"):
        with pytest.raises(ConfigError, match=r"in use by another process.*--cache"):
            run_claim(ConstantState(), seeds=(0,), cache=tmp_path)
        run_claim(ConstantState(), seeds=(1,), cache=tmp_path)  # another arm
    assert {path.suffix for path in kept.parent.iterdir()} == {".json"}


def test_an_arm_of_any_name_stays_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = ConstantState().arms()
    odd = {"../../a b": arms["recurrence"], "x/\n:": arms["attention"]}
    monkeypatch.setattr(ConstantState, "arms", lambda self: odd)
    monkeypatch.setattr(ConstantState, "findings", lambda self, got: iter([Finding("one", 1.0, "==", 1.0)]))
    run_claim(ConstantState(), seeds=(0,), cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "test_runner").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_place_for_the_results_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ConstantState.calls = 0
    with pytest.raises(DataError, match=r"test_runner\.json"):
        run_claim(ConstantState(), seeds=(0,), out=tmp_path / "file")
    assert ConstantState.calls == 0
